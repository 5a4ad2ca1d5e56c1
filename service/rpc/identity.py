"""Who may call: tokens and certificates, kept by the operator in one file that may be changed while the server runs.

    [[identity]]
    name = "camera-7"
    sha256 = "9f86d081..."          # of the token that `advsentry token new` printed
    scopes = ["detect"]
    images_per_s = 100              # optional; without it the server's own rate, 0 for none
    burst = 200                     # optional; without it one second's worth
    not_after = 2027-01-01T00:00:00Z  # optional

    [[identity]]
    name = "pipeline"
    certificate = "pipeline.example.org"  # a name in it: DNS or URI, or CN where it has neither
    scopes = ["detect", "detect.scores", "info"]

A name may stand more than once, as while a token is changed for another.
"""

import hashlib
import hmac
import logging
import math
import re
import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from service.errors import SetupError, Unauthenticated
from service.rpc.call import Caller, Scope
from service.rpc.watched import WatchedFiles, read_file

__all__ = ["Identities", "IdentityFile", "parse_identities", "token_digest"]

log = logging.getLogger(__name__)

_KEYS = frozenset({"name", "sha256", "certificate", "scopes", "images_per_s", "burst", "not_after"})
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_NAME = 64


def token_digest(token: str) -> bytes:
    """SHA-256 of a token: all that is kept of it. It has 256 random bits, so that it needs neither salt nor stretching.

    >>> token_digest("test").hex()[:16]
    '9f86d081884c7d65'
    """
    return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True, kw_only=True)
class Known:
    """One entry of the file."""

    caller: Caller
    digest: bytes = b""
    certificate: str = ""
    ends: float = math.inf
    """Unix time."""


@dataclass(frozen=True, kw_only=True)
class Identities:
    """The entries of one file; looked up in microseconds."""

    by_digest: Mapping[bytes, Known] = field(default_factory=dict)
    by_certificate: Mapping[str, Known] = field(default_factory=dict)

    def of_token(self, token: str) -> Caller:
        """Whose token it is.

        It is looked up by its digest, so that the time it takes says nothing of tokens that are known: whoever wants a
        digest close to another must find tokens by trial.

        Raises:
            Unauthenticated: nobody's, or his no more.
        """
        digest = token_digest(token)
        known = self.by_digest.get(digest)
        if known is None or not hmac.compare_digest(known.digest, digest):
            raise Unauthenticated("the token is unknown; ask the operator for another")
        return _in_time(known, "token")

    def of_certificate(self, names: Iterable[str]) -> Caller:
        """Whose certificate it is, by the first of its names that is known.

        Raises:
            Unauthenticated: nobody's, or his no more.
        """
        for name in names:
            known = self.by_certificate.get(name)
            if known is not None:
                return _in_time(known, "certificate")
        raise Unauthenticated("the certificate is valid, but of nobody who is known; ask the operator to add its name")


def _in_time(known: Known, what: str) -> Caller:
    if time.time() > known.ends:
        raise Unauthenticated(f"the identity of this {what} has ended; ask the operator for another")
    return known.caller


class IdentityFile:
    """The identities as the file says now; a new file that is wrong is logged, and the old one stays."""

    def __init__(self, path: Path, *, takes_tokens: bool, takes_certificates: bool) -> None:
        """Reads the file.

        Args:
            takes_tokens: False where a token would come in plaintext over a network.
            takes_certificates: whether the server asks clients for them.

        Raises:
            SetupError: it cannot be read, or something in it is wrong.
        """
        self._path = path
        self._takes_tokens = takes_tokens
        self._takes_certificates = takes_certificates
        self._watched = WatchedFiles([path])
        self._now = self._load()

    def now(self) -> Identities:
        """The entries; looks for a new file now and then."""
        if self._watched.have_changed():
            try:
                self._now = self._load()
            except SetupError as error:
                log.error("the new identities are not taken, the old ones stay: %s", error)
            else:
                log.info("new identities are taken: %d entries", _count(self._now))
        return self._now

    def _load(self) -> Identities:
        try:
            made = parse_identities(read_file(self._path, "identities").decode())
        except (OSError, ValueError) as error:
            where = "" if isinstance(error, OSError) else f"identities {self._path}: "
            raise SetupError(f"{where}{error}") from error
        if made.by_digest and not self._takes_tokens:
            raise SetupError(
                f"identities {self._path}: has tokens, which would come in plaintext over a network; set --tls-cert "
                "and --tls-key, listen on 127.0.0.1, or say --allow-plaintext-tokens on where something before the "
                "server does TLS"
            )
        if made.by_certificate and not self._takes_certificates:
            raise SetupError(f"identities {self._path}: has certificates, which are asked for with --tls-client-ca")
        return made


def _count(made: Identities) -> int:
    return len(made.by_digest) + len(made.by_certificate)


def parse_identities(text: str) -> Identities:
    """The entries of a file.

    Raises:
        ValueError: says which entry, what was expected and what came; never a digest.
    """
    table = tomllib.loads(text)
    entries = table.pop("identity", [])
    if table or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("expected [[identity]] entries and nothing else")
    if not entries:
        raise ValueError("expected at least one [[identity]] entry: nobody could call")
    by_digest: dict[bytes, Known] = {}
    by_certificate: dict[str, Known] = {}
    for number, entry in enumerate(entries, 1):
        try:
            known = _known(entry)
            if known.digest in by_digest or known.certificate in by_certificate:
                raise ValueError("its token or certificate is also that of an entry above")
        except ValueError as error:
            raise ValueError(f"entry {number} ({str(entry.get('name', 'no name'))[:_MAX_NAME]}): {error}") from None
        if known.digest:
            by_digest[known.digest] = known
        else:
            by_certificate[known.certificate] = known
    return Identities(by_digest=by_digest, by_certificate=by_certificate)


def _known(entry: dict[str, Any]) -> Known:
    unknown = sorted(entry.keys() - _KEYS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}")
    if ("sha256" in entry) == ("certificate" in entry):
        raise ValueError("expected one of sha256 and certificate")
    certificate = _text(entry, "certificate", 1000) if "certificate" in entry else ""
    digest = str(entry.get("sha256", "")).lower()
    if not certificate and not _DIGEST.fullmatch(digest):
        raise ValueError("sha256: expected 64 hexadecimal digits, as `advsentry token new` prints")
    ends = entry.get("not_after")
    if ends is not None and (not isinstance(ends, datetime) or ends.tzinfo is None):
        raise ValueError(f"not_after: expected a time with its zone, such as 2027-01-01T00:00:00Z, got {ends}")
    return Known(
        caller=Caller(
            name=_text(entry, "name", _MAX_NAME),
            scopes=_scopes(entry.get("scopes")),
            images_per_s=_rate(entry, "images_per_s"),
            burst=_rate(entry, "burst"),
        ),
        digest=bytes.fromhex(digest),
        certificate=certificate,
        ends=math.inf if ends is None else ends.timestamp(),
    )


def _text(entry: dict[str, Any], key: str, most: int) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= most:
        raise ValueError(f"{key}: expected 1 to {most} printable characters")
    return value


def _scopes(value: object) -> frozenset[Scope]:
    known = {scope.value for scope in Scope}
    if not isinstance(value, list) or not value or not all(scope in known for scope in value):
        raise ValueError(f"scopes: expected some of {', '.join(sorted(known))}, got {value}")
    return frozenset(map(Scope, value))


def _rate(entry: dict[str, Any], key: str) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{key}: expected a number from 0 on, got {value}")
    return float(value)
