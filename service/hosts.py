"""Addresses, as operators and clients write them."""

import ipaddress
from collections.abc import Collection

from service.errors import SetupError

__all__ = ["check_target", "is_loopback", "may_ask"]

_MOST = 65535


def is_loopback(host: str) -> bool:
    """Whether what is sent to an address stays on this machine.

    >>> is_loopback("127.0.0.1"), is_loopback("[::1]"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    bare = host.strip("[]")
    return bare in ("localhost", "::1") or (bare.startswith("127.") and bare.replace(".", "").isdigit())


def check_target(target: str) -> None:
    """Refuses what is no HOST:PORT; gRPC would take port 443 for one that is missing, and 99999 for 34463.

    Raises:
        SetupError: there is no port, or none that can be.

    >>> for target in ("localhost:50051", "[::1]:50051", "dns:///host:50051", "unix:/run/advsentry"):
    ...     check_target(target)
    """
    if "/" in target or target.startswith("unix"):  # a name with a scheme, which gRPC looks at
        return
    host, _, port = target.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port[:9]) <= _MOST):
        raise SetupError(f"--target: expected HOST:PORT with a port from 1 to {_MOST}, got {target!r}")
    if ":" in host and not host.startswith("["):
        raise SetupError(f"--target: expected an IPv6 address in brackets, such as [::1]:50051, got {target!r}")


def may_ask(host: str, names: Collection[str]) -> bool:
    """Whether a Host header has an address, localhost or one of some names; `*` among them for any.

    >>> [may_ask(host, ["me.example"]) for host in ("10.0.0.7:9464", "[::1]", "localhost:1", "Me.example.:80")]
    [True, True, True, True]
    >>> [may_ask(host, []) for host in ("attacker.example:9464", "10.0.0.7.attacker.example", "", "localhost.example")]
    [False, False, False, False]
    """
    bare = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    bare = bare.rstrip(".").lower()
    if "*" in names or bare in {"localhost", *(name.lower() for name in names)}:
        return True
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return True
