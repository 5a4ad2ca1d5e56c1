"""The server's certificate, and the certificates that it asks of clients; both may be changed while it runs."""

import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

from service.errors import SetupError
from service.rpc.certificate import check_pair, not_after
from service.rpc.watched import WatchedFiles, read_file

__all__ = ["ServerTls", "TlsFiles"]

log = logging.getLogger(__name__)

Pair: TypeAlias = grpc.ServerCertificateConfiguration


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Where an operator keeps what TLS needs, all in PEM."""

    certificate: Path
    """The server's, then those between it and the root."""
    key: Path
    """Without a password."""
    client_ca: Path | None = None
    """Roots of the clients' certificates; with them every client must show one (mutual TLS)."""

    @classmethod
    def of(cls, certificate: str, key: str, client_ca: str) -> "TlsFiles | None":
        """The files of three settings, of which an empty one is absent; None where there is no TLS.

        Raises:
            SetupError: one is there without what it needs.
        """
        if bool(certificate) != bool(key):
            raise SetupError("--tls-cert and --tls-key go together: TLS needs a certificate and its key")
        if client_ca and not certificate:
            raise SetupError("--tls-client-ca needs --tls-cert and --tls-key: only over TLS clients show certificates")
        if not certificate:
            return None
        return cls(certificate=Path(certificate), key=Path(key), client_ca=Path(client_ca) if client_ca else None)

    @property
    def all(self) -> list[Path]:
        """Every file."""
        return [self.certificate, self.key, *([self.client_ca] if self.client_ca else [])]


class ServerTls:
    """Credentials that follow their files.

    A new pair is taken at the next handshake after it was written; connections that stand live on. A pair that is wrong
    is logged, and the old one stays, so write key and certificate in any order.
    """

    def __init__(self, files: TlsFiles, *, tell_end: Callable[[float], object]) -> None:
        """Reads the files.

        Args:
            tell_end: given the Unix time at which a certificate ends, at each new one.

        Raises:
            SetupError: a file is missing or wrong, or the key is of another certificate.
        """
        self._files = files
        self._tell_end = tell_end
        self._watched = WatchedFiles(files.all)
        try:
            self._first = self._load()
        except (OSError, ValueError) as error:
            raise SetupError(f"TLS: {error}") from error

    @property
    def asks_for_certificates(self) -> bool:
        """Whether clients must show one."""
        return self._files.client_ca is not None

    def credentials(self) -> grpc.ServerCredentials:
        """What a port is opened with."""
        return grpc.dynamic_ssl_server_credentials(
            self._first,
            self._changed,  # type: ignore[arg-type]  # None is gRPC's own word for "as before", its stub forgot it
            require_client_authentication=self.asks_for_certificates,
        )

    def _changed(self) -> Pair | None:
        """For gRPC, at each handshake: the new pair, None while there is none."""
        if not self._watched.have_changed():
            return None
        try:
            pair = self._load()
        except (OSError, ValueError) as error:
            log.error("the new TLS files are not taken, the old ones stay: %s", error)
            return None
        log.info("new TLS files are taken")
        return pair

    def _load(self) -> Pair:
        files = self._files
        certificate = read_file(files.certificate, "certificate")
        key = read_file(files.key, "key")
        roots = read_file(files.client_ca, "client CA") if files.client_ca else None
        check_pair(files.certificate, files.key)
        if roots is not None:
            _check_roots(files, roots)
        try:
            ends = not_after(certificate)
        except ValueError as error:
            raise ValueError(f"certificate {files.certificate}: {error}") from error
        if (certificate, key) != (files.certificate.read_bytes(), files.key.read_bytes()):
            raise ValueError("the files change while they are read")
        self._tell_end(ends)
        if ends < time.time():
            log.warning("the certificate %s has ended: clients will refuse it", files.certificate)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=roots)


def _check_roots(files: TlsFiles, roots: bytes) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=roots.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"client CA {files.client_ca}: expected certificates in PEM, found none that is whole"
        ) from error
