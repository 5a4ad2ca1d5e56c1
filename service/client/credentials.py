"""How a client knows the server, and how it shows who it is; the same for blocking and asyncio channels."""

import re
from pathlib import Path

import grpc

from service.errors import SetupError
from service.hosts import is_loopback
from service.rpc.certificate import check_pair

__all__ = ["channel_credentials", "read_token", "token_metadata"]


def channel_credentials(
    *, tls: bool = False, ca: str | Path | None = None, cert: str | Path | None = None, key: str | Path | None = None
) -> grpc.ChannelCredentials | None:
    """What a secure channel is opened with; None for plaintext.

    Args:
        tls: whether to use TLS although no file is given; the server must then be known to gRPC's own roots.
        ca: PEM file of the roots that the server is known by, in place of gRPC's own.
        cert: PEM file of the client's certificate and those above it, where the server asks for one (mutual TLS).
        key: PEM file of its key, without a password.

    Raises:
        SetupError: a file cannot be read or is none of its kind, or one of `cert` and `key` is missing or not the
            other's.
    """
    if (cert is None) != (key is None):
        raise SetupError("a client's certificate and its key go together: give --cert and --key, or neither")
    if not (tls or ca or cert):
        return None
    roots, own_key, own = _pem(ca, "CERTIFICATE-----"), _pem(key, "PRIVATE KEY-----"), _pem(cert, "CERTIFICATE-----")
    if cert is not None and key is not None:
        try:
            check_pair(Path(cert), Path(key))
        except ValueError as error:
            raise SetupError(str(error)) from error
    return grpc.ssl_channel_credentials(roots, own_key, own)


def token_metadata(
    token: str, target: str, credentials: grpc.ChannelCredentials | None
) -> tuple[tuple[str, str], ...] | None:
    """The metadata to send with each call; None without a token.

    Raises:
        SetupError: the token would go over a network in plaintext, or is no token.
    """
    if not token:
        return None
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise SetupError("the token has characters that no token has; give the one that `advsentry token new` printed")
    is_here = target.startswith(("unix:", "unix-abstract:")) or is_loopback(target.rpartition(":")[0])
    if credentials is None and not is_here:
        raise SetupError(f"a token is not sent to {target} in plaintext, where others can read it; use TLS (--ca FILE)")
    return (("authorization", f"Bearer {token}"),)


def read_token(path: Path | None) -> str:
    """The token in a file, without the space around it; empty without a file.

    Raises:
        SetupError: it cannot be read, or is empty.
    """
    token = (_content(path) or b"").decode("ascii", "replace").strip()
    if path is not None and not token:
        raise SetupError(f"{path}: expected a token, found nothing")
    return token


def _pem(path: str | Path | None, kind: str) -> bytes | None:
    """What a PEM file holds; gRPC would say nothing of another one but that no connection came about."""
    content = _content(path)
    if content is not None and not re.search(rb"-----BEGIN [A-Z ]*" + kind.encode(), content):
        raise SetupError(f"{path}: expected a PEM file with -----BEGIN {kind}")
    return content


def _content(path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from error
