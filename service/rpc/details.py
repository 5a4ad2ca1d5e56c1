"""Rich error details: the `google.rpc.Status` that libraries read from `grpc-status-details-bin`.

Its few messages are declared here, in a descriptor pool of our own: the wire is that of googleapis, of which nothing is
needed at run time, and nothing clashes with it where both are loaded.
"""

from functools import lru_cache
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory

from service.errors import AdvsentryError, InvalidRequest, Overloaded

__all__ = ["KEY", "status_bytes"]

KEY = "grpc-status-details-bin"
_TYPES = "type.googleapis.com/"

_STRING, _INT32, _MESSAGE = 9, 5, 11
_MESSAGES: dict[str, list[tuple[str, int | str]]] = {
    "Status": [("code", _INT32), ("message", _STRING), ("details", "google.protobuf.Any[]")],
    "RetryInfo": [("retry_delay", "google.protobuf.Duration")],
    "FieldViolation": [("field", _STRING), ("description", _STRING)],
    "BadRequest": [("field_violations", "google.rpc.FieldViolation[]")],
}
"""Fields in the order of their numbers, from 1; a name of a message stands for its type, `[]` for many."""


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="advsentry/details.proto", package="google.rpc", syntax="proto3")
    pool = descriptor_pool.DescriptorPool()
    for known in (any_pb2, duration_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
        file.dependency.append(known.DESCRIPTOR.name)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, start=1):
            made = message.field.add(name=field, number=number, label=1, type=_MESSAGE)
            if isinstance(kind, int):
                made.type = kind  # type: ignore[assignment]  # the numbers of descriptor.proto
            else:
                made.type_name = "." + kind.removesuffix("[]")
                made.label = 3 if kind.endswith("[]") else 1  # type: ignore[assignment]
    pool.AddSerializedFile(file.SerializeToString())
    names = [f"google.rpc.{name}" for name in _MESSAGES]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}


_CLASSES = _classes()
_STATUS = _CLASSES["google.rpc.Status"]


def status_bytes(code: int, text: str, error: AdvsentryError) -> bytes:
    """A serialised `google.rpc.Status` with what a program may want to know of an error.

    It holds `RetryInfo` when the caller may come back, `BadRequest` when a field of the request is at fault.

    Args:
        code: number of the gRPC code; with `text` it must be what the call ends with, which clients check.
    """
    status: bytes = _STATUS(code=code, message=text).SerializeToString()
    if isinstance(error, Overloaded):
        return status + _retry_info(error.retry_after_ms)
    if isinstance(error, InvalidRequest) and error.field:
        request = _CLASSES["google.rpc.BadRequest"]()
        request.field_violations.add(field=error.field, description=text)
        return status + _detail(request)
    return status


@lru_cache(maxsize=8192)  # more than there are hints of a full queue
def _retry_info(milliseconds: int) -> bytes:
    info = _CLASSES["google.rpc.RetryInfo"]()
    info.retry_delay.FromMilliseconds(milliseconds)
    return _detail(info)


def _detail(message: Any) -> bytes:
    """What stands behind the code and the text: serialised parts of a message, one after the other, are all of it."""
    status = _STATUS()
    status.details.add(type_url=_TYPES + message.DESCRIPTOR.full_name, value=message.SerializeToString())
    return bytes(status.SerializeToString())
