"""Ports that several processes share, and that no second supervisor shares with them."""

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator

from service.errors import SetupError
from service.settings import Settings

__all__ = ["check_ports", "reserve_port"]


def check_ports(settings: Settings) -> None:
    """Refuses one port for calls and for health: processes would share it, and calls would come there without TLS.

    Raises:
        SetupError: they are the same.
    """
    hosts = {settings.host, settings.health_host}
    if settings.port == settings.health_port > 0 and (len(hosts) == 1 or hosts & {"0.0.0.0", "::"}):
        raise SetupError(f"--port and --health-port: expected two ports, got {settings.port} twice")


@contextlib.contextmanager
def reserve_port(host: str, port: int, flags: str = "--port or --host") -> Iterator[socket.socket]:
    """A socket that keeps a port for processes that share it, without listening.

    Args:
        flags: those that choose another, for the error.

    Raises:
        SetupError: the address cannot be had, or others listen there or are about to.
    """
    with contextlib.ExitStack() as stack:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            family, kind, _, _, place = found
            if port:  # a port may be shared with anybody who shares it: look first whether somebody does
                stack.enter_context(_only_one(f"{place[0]}:{port}"))
                with socket.socket(family, kind) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(place)
            reserved = stack.enter_context(socket.socket(family, kind))
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.bind(place)
        except OSError as error:
            raise SetupError(
                f"gRPC cannot listen on {host}:{port}: {error.strerror}; choose another with {flags}"
            ) from error
        yield reserved


@contextlib.contextmanager
def _only_one(address: str) -> Iterator[None]:
    """Held by one process of a network at a time: until its workers listen, the port itself tells nobody.

    It is a socket with a name that is no file; the kernel takes it back when the process ends. Only Linux has such.

    Raises:
        OSError: another holds it.
    """
    if sys.platform != "linux":
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        try:
            lock.bind(f"\0advsentry/{address}")
        except OSError as error:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from error
        yield
