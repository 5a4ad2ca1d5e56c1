"""gRPC reflection of every service, out of one pool."""

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from protos import detection_pb2, inference

__all__ = ["enable_reflection"]

FILES: tuple[FileDescriptor, ...] = (
    detection_pb2.DESCRIPTOR,
    inference.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
)


def enable_reflection(server: grpc.aio.Server) -> None:
    """Has a server tell its services and messages; those of `inference` are not in the default pool."""
    pool, added = DescriptorPool(), set[str]()
    for file in FILES:
        _add(pool, file, added)
    names = [service.full_name for file in FILES for service in file.services_by_name.values()]
    reflection.enable_server_reflection(names, server, pool)


def _add(pool: DescriptorPool, file: FileDescriptor, added: set[str]) -> None:
    """Puts a file into a pool, after those that it imports."""
    if file.name in added:
        return
    added.add(file.name)
    for needed in file.dependencies:
        _add(pool, needed, added)
    pool.AddSerializedFile(file.serialized_pb)
