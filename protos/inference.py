"""The messages of `inference.proto`, as a stub would have them, but in a descriptor pool of their own.

The default pool takes each name once, and the clients of Triton, KServe and MLServer bring the same names: a stub of
ours there would keep them out of this process. The bytes on the wire are the same. `make protos` makes the descriptors
and `inference.pyi`, which says what is found here.
"""

from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass


def _load() -> FileDescriptor:
    pool = DescriptorPool()
    files = FileDescriptorSet.FromString((Path(__file__).parent / "inference.binpb").read_bytes()).file
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    return pool.FindFileByName(files[-1].name)


DESCRIPTOR = _load()

for _name, _message in DESCRIPTOR.message_types_by_name.items():
    globals()[_name] = GetMessageClass(_message)
for _name, _enum in DESCRIPTOR.enum_types_by_name.items():
    globals()[_name] = EnumTypeWrapper(_enum)
    globals().update({value.name: value.number for value in _enum.values})
