"""Opens the history that the settings name: of this process, or shared with others through Redis."""

import hashlib
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, urlsplit

from service.errors import SetupError
from service.history.bounds import Bounds
from service.history.calibration import Calibration
from service.history.fingerprints import KEY_BYTES
from service.history.history import History
from service.history.records import FORMAT
from service.history.sealing import Seal

if TYPE_CHECKING:
    from service.history.shared import SharedHistory

__all__ = ["open_history", "read_secret"]

_SCHEMES = ("redis", "rediss", "unix")
_TIMES = ("socket_timeout", "socket_connect_timeout")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_MOST_TIMEOUT_S = 10.0


def open_history(
    url: str, calibration: Calibration, *, dimensions: int, bounds: Bounds, secret: Path | None
) -> "History | SharedHistory":
    """The history to ask; `close` gives back what it holds.

    Args:
        url: empty for one of this process; redis://[user:password@]host[:port][/number], rediss:// for TLS, or
            unix://[user:password@]/path for one that all processes with the same URL, secret, calibration and bounds
            share. Redis need not be there yet.
        dimensions: of the embeddings.
        secret: a file, from which all keys follow; None for a history of this process alone, whose secret is the
            operating system's then.

    Raises:
        SetupError: the URL or the secret will not do, the package `redis` is missing, or the bounds leave too little
            room.
    """
    key = None if secret is None else read_secret(secret)
    if not url:
        return History(calibration, dimensions=dimensions, bounds=bounds, secret=key)
    _check(url)
    if key is None:
        raise SetupError(
            "a history in Redis wants a file with a secret that all its processes have, got none; make one: "
            "openssl rand -hex 32 > history.secret && chmod 600 history.secret"
        )
    from service.history.link import Link  # a server without Redis loads none of its package
    from service.history.shared import SharedHistory

    replica = History(calibration, dimensions=dimensions, bounds=bounds, secret=key)
    made_for = repr((FORMAT, dimensions, bounds)).encode() + calibration.to_bytes()
    stream = hashlib.blake2b(made_for, key=key, digest_size=8, person=b"stream name").hexdigest()
    sealing = hashlib.blake2b(made_for, key=key, digest_size=KEY_BYTES, person=b"stream key").digest()
    link = Link(url, stream=f"advsentry:history:{stream}", most=replica.store.capacity)
    return SharedHistory(replica, link, seal=Seal(sealing), dimensions=dimensions)


def read_secret(path: Path) -> bytes:
    """The `KEY_BYTES` bytes that a file gives as hexadecimal digits.

    Raises:
        SetupError: it cannot be read, anybody may read it, or it is no secret.
    """
    try:
        mode, text = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path}: the history's secret cannot be read: {error.strerror}") from error
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise SetupError(
            f"{path}: expected the history's secret in a file that only the server may read, got mode "
            f"{stat.S_IMODE(mode):o}: chmod 600"
        )
    try:
        key = bytes.fromhex(text.decode())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise SetupError(
            f"{path}: expected {2 * KEY_BYTES} hexadecimal digits, as openssl rand -hex {KEY_BYTES} gives, got "
            f"{len(text)} bytes of another kind"
        )
    return key


def _check(url: str) -> None:
    """Refuses what redis-py would take for something else, or only find out later; repeats no password."""
    wants = "history: expected redis://, rediss:// or unix:// with"
    try:
        parts = urlsplit(url)
        port, options = parts.port, dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise SetupError(f"{wants} a host, a port and options, got a URL that is none") from error
    if parts.scheme not in _SCHEMES:
        raise SetupError(f"{wants} a host or a path, got {parts.scheme or 'no scheme'}")
    if parts.scheme == "unix":
        if parts.hostname or len(parts.path) < 2:
            raise SetupError("history: expected unix:///path/to/the/socket, got no path or a host")
    elif not parts.hostname or port == 0 or not _is_number(parts.path):
        raise SetupError("history: expected redis://host:port/number, got no host, or another port or number")
    _check_options(parts, options)


def _is_number(path: str) -> bool:
    return path in ("", "/") or path[1:].isdecimal()


def _check_options(parts: SplitResult, options: dict[str, str]) -> None:
    known = [*_TIMES, *(_FILES if parts.scheme == "rediss" else ()), *(("db",) if parts.scheme == "unix" else ())]
    for name, value in options.items():
        if name not in known:
            raise SetupError(f"history: expected options of the URL among {', '.join(known)}, got {name}")
        if name in _TIMES and not _is_time(value):
            raise SetupError(
                f"history: expected {name} in seconds, above 0 and at most {_MOST_TIMEOUT_S:g}, got {value}"
            )
        if name in _FILES and not Path(value).is_file():
            raise SetupError(f"history: {name}: expected a file, got {value}")
        if name == "db" and not value.isdecimal():
            raise SetupError(f"history: expected db to be a number, got {value}")


def _is_time(text: str) -> bool:
    try:
        return 0 < float(text) <= _MOST_TIMEOUT_S
    except ValueError:
        return False
