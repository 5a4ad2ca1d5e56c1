"""Addresses, as operators and clients write them."""

__all__ = ["is_loopback"]


def is_loopback(host: str) -> bool:
    """Whether what is sent to an address stays on this machine.

    >>> is_loopback("127.0.0.1"), is_loopback("[::1]"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    bare = host.strip("[]")
    return bare in ("localhost", "::1") or (bare.startswith("127.") and bare.replace(".", "").isdigit())
