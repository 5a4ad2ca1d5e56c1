"""HTTP/2 by hand (RFC 9113), for what no gRPC client would do."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
ATTACKER = "127.0.0.2"
CANCEL = struct.pack(">I", 8)


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def field(name: str, value: str) -> bytes:
    """A header, literal and never indexed (RFC 7541, section 6.2.3)."""
    return b"\x10" + _text(name) + _text(value)


def _text(value: str) -> bytes:
    data = value.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, length = len(data) - 127, bytearray([127])
    while rest >= 128:
        length.append(rest % 128 | 128)
        rest //= 128
    return bytes([*length, rest]) + data


def request(path: str, *more: tuple[str, str]) -> bytes:
    """The header block of a call."""
    known = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
    return b"".join(field(name, value) for name, value in (*known, *more))


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


class Connection:
    """A connection that has said hello, unless told not to; from an address that no test's client has."""

    def __init__(self, target: str, *, hello: bool = True) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 10, (ATTACKER, 0))
        if hello:
            self.socket.sendall(PREFACE + frame(SETTINGS))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *frames: bytes) -> bool:
        """Whether the other side still takes them."""
        try:
            self.socket.sendall(b"".join(frames))
        except OSError:
            return False
        return True

    def frames(self, timeout_s: float) -> Iterator[Frame]:
        """What comes, until the other side closes; TimeoutError when nothing comes for so long."""
        self.socket.settimeout(timeout_s)
        with contextlib.suppress(ConnectionError), self.socket.makefile("rb") as stream:
            while len(head := stream.read(9)) == 9:
                payload = stream.read(int.from_bytes(head[:3]))
                yield Frame(head[3], head[4], int.from_bytes(head[5:9]) & 0x7FFFFFFF, payload)

    def is_closed_within(self, timeout_s: float) -> bool:
        """Reads on, and answers nothing."""
        try:
            for _ in self.frames(timeout_s):
                pass
        except TimeoutError:
            return False
        return True
