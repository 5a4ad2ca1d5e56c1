"""New tokens, and their entries in the file of identities."""

import contextlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.errors import SetupError
from service.rpc.call import Scope
from service.rpc.identity import parse_identities, token_digest

__all__ = ["NewToken", "add_entry", "new_token"]

PREFIX = "advsentry_"
"""So that scanners for lost secrets, and people, know one when they see it."""
_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class NewToken:
    """A token and what the server keeps of it."""

    token: str
    entry: str
    """For the file of identities: TOML, with the SHA-256 of the token."""


def new_token(
    name: str, scopes: Sequence[Scope], *, images_per_s: float | None = None, days: int | None = None
) -> NewToken:
    """A token of 256 random bits.

    Args:
        name: who gets it.
        images_per_s: its own rate; None for the server's.
        days: for how long it is good; None for ever.

    Raises:
        SetupError: the name, the rate or the days are none that the server takes.
    """
    token = PREFIX + secrets.token_urlsafe(_BYTES)
    lines = [
        "[[identity]]",
        f"name = {json.dumps(name)}",
        f'sha256 = "{token_digest(token).hex()}"',
        f"scopes = [{', '.join(json.dumps(scope.value) for scope in dict.fromkeys(scopes))}]",
    ]
    if images_per_s is not None:
        lines.append(f"images_per_s = {images_per_s}")
    if days is not None:
        lines.append(f"not_after = {_in_days(days)}")
    entry = "\n".join(lines) + "\n"
    try:
        parse_identities(entry)
    except ValueError as error:
        raise SetupError(str(error).partition(": ")[2]) from error
    return NewToken(token=token, entry=entry)


def _in_days(days: int) -> str:
    try:
        ends = datetime.now(UTC) + timedelta(days=days)
    except OverflowError:
        ends = datetime.min.replace(tzinfo=UTC)
    if ends <= datetime.now(UTC):
        raise SetupError(f"--days: expected a whole number from 1 to {_most_days()}, got {days}")
    return ends.strftime("%Y-%m-%dT%H:%M:%SZ")


def _most_days() -> int:
    """Those until the last year that a date can have."""
    return (datetime.max.replace(tzinfo=UTC) - datetime.now(UTC)).days


def _keep_owner(path: Path, like: os.stat_result) -> None:
    """So that a server that may read the one file may read the other, whoever adds an entry."""
    with contextlib.suppress(PermissionError):  # nobody but root gives files away
        os.chown(path, like.st_uid, like.st_gid)
    path.chmod(like.st_mode & 0o777)


def add_entry(path: Path, entry: str) -> None:
    """Adds an entry to a file of identities, or makes the file; a running server takes it by itself.

    The whole file is put in place at once, so that a server never reads half of it.

    Raises:
        SetupError: the file cannot be read or written, or would be wrong.
    """
    if path.exists() and not path.is_file():  # a device would be replaced by a file
        raise SetupError(f"{path}: expected a file of identities, or a name for a new one")
    try:
        path = path.resolve()  # of a link, what it leads to
        before = path.read_text("utf-8") if path.exists() else ""
        text = before + ("\n" if before else "") + entry
        parse_identities(text)
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)
        beside.touch(mode=0o600)
        beside.write_text(text, "utf-8")
        if before:
            _keep_owner(beside, path.stat())
        os.replace(beside, path)
    except OSError as error:
        raise SetupError(f"{path}: cannot be written: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SetupError(f"{path}: expected identities in TOML, found no UTF-8") from error
    except ValueError as error:
        raise SetupError(f"{path}: {error}") from error
