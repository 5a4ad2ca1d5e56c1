"""Bytes of a stranger to a message, at a bounded price."""

from functools import lru_cache
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from service.errors import InvalidRequest

__all__ = ["AnyMessage", "check_id", "cut_id", "has_more_fields", "parsed"]

MAX_ID_BYTES = 128
PACKED_BYTES = 4096
"""Of a packed list of numbers that count as one field."""

AnyMessage = TypeVar("AnyMessage", bound=Message)


def parsed(kind: type[AnyMessage], data: bytes) -> AnyMessage:
    """The message that bytes are.

    Raises:
        InvalidRequest: they are none.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        name = kind.DESCRIPTOR.full_name
        raise InvalidRequest(f"expected one {name}, got {len(data)} bytes that are none") from error


def check_id(value: str, name: str) -> None:
    """Refuses an id that is too long to be echoed and logged.

    Raises:
        InvalidRequest: more than 128 bytes.
    """
    if len(value) > MAX_ID_BYTES // 4 and (size := len(value.encode())) > MAX_ID_BYTES:
        raise InvalidRequest(f"{name}: expected at most {MAX_ID_BYTES} bytes, got {size}", field=name)


def cut_id(value: str) -> str:
    """As much of an id that is too long as may be echoed."""
    return value.encode()[:MAX_ID_BYTES].decode(errors="ignore")


def has_more_fields(
    data: bytes, most: int, within: type[Message] | None = None, leaves: frozenset[str] = frozenset()
) -> bool:
    """Whether a message has more fields than so many; a packed list of numbers counts one more for each 4 KiB.

    Looked up before parsing: 16 MiB hold 8 million messages of no bytes, which take 25 s and 800 MB, or 16 million
    numbers, which take 0.9 s.

    Args:
        within: a message of this kind, the fields of whose messages count, too.
        leaves: names of the messages in it that are not looked into.
    """
    return _fields_left(data, 0, len(data), most, {} if within is None else _table(within.DESCRIPTOR, leaves)) < 0


_NUMBERS: dict[int, Any] = {}
"""Stands in a table for a list of numbers."""


@lru_cache(maxsize=64)
def _table(kind: Any, leaves: frozenset[str]) -> dict[int, Any]:
    """By a field's number, the table of its message, or `_NUMBERS`: asking descriptors takes 10 us a field.

    Args:
        kind: a descriptor, of which there are two kinds.
    """
    found: dict[int, Any] = {}
    for field in kind.fields:
        if field.message_type is None:
            if field.cpp_type != field.CPPTYPE_STRING:  # which bytes are, too
                found[field.number] = _NUMBERS
        elif field.name not in leaves:
            found[field.number] = _table(field.message_type, leaves)
    return found


def _fields_left(data: bytes, position: int, end: int, left: int, within: dict[int, Any]) -> int:
    """How many of so many fields are left; negative when they do not suffice."""
    while position < end and left >= 0:
        left -= 1
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == 2:
            length, position = _varint(data, position)
            inner = within.get(tag >> 3)
            if inner is _NUMBERS:
                left -= (min(position + length, end) - position) // PACKED_BYTES
            elif inner is not None:
                left = _fields_left(data, position, min(position + length, end), left, inner)
            position += length
        elif kind == 0:
            _, position = _varint(data, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        elif kind > 5:
            break  # there is no such kind; the parser says so
    return left


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number and the place behind it; what is cut short or too long ends the message, the parser says why."""
    value = 0
    for shift, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, position + shift + 1
    return 0, len(data)
