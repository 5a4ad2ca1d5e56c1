"""Certificates made for a test: a root, what it signs, and how an operator changes one for another."""

import datetime
import ipaddress
import os
import shutil
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["DAY", "Authority", "Signed", "now", "shown_by"]

DAY = datetime.timedelta(days=1)


def now() -> datetime.datetime:
    """To the second, as certificates have it."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A certificate, its key and their PEM files."""

    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey
    cert: Path
    key: Path

    @property
    def der(self) -> bytes:
        """The certificate as it is shown."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def put(self, cert: Path, key: Path) -> None:
        """Replaces a pair of files by this one as operators do: written beside, then renamed."""
        for source, place in ((self.key, key), (self.cert, cert)):
            beside = place.with_suffix(".new")
            shutil.copy(source, beside)
            os.replace(beside, place)


class Authority:
    """A root; every file lies in its folder."""

    def __init__(self, folder: Path, name: str = "root") -> None:
        """Makes the folder and the root."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._root = self._make(name, issuer=None, names=[], ends=now() + 30 * DAY)
        self.ca = self._root.cert

    def sign(
        self,
        name: str,
        *,
        ends: datetime.datetime | None = None,
        names: tuple[str, ...] = (),
        uris: tuple[str, ...] = (),
    ) -> Signed:
        """A certificate for 127.0.0.1, localhost and other names; valid for ten days unless told otherwise."""
        subject: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            *map(x509.DNSName, ("localhost", *names)),
            *map(x509.UniformResourceIdentifier, uris),
        ]
        return self._make(name, issuer=self._root, names=subject, ends=ends or now() + 10 * DAY)

    def _make(
        self, name: str, *, issuer: Signed | None, names: list[x509.GeneralName], ends: datetime.datetime
    ) -> Signed:
        private = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(ends - 60 * DAY)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = builder.sign(issuer.private if issuer else private, hashes.SHA256())
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Signed(certificate=made, private=private, cert=cert, key=key)


def shown_by(target: str) -> bytes:
    """The certificate that a new connection meets, in DER.

    Raises:
        OSError: nobody answers, or not by TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = target.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as plain, context.wrap_socket(plain) as wrapped:
        return wrapped.getpeercert(binary_form=True) or b""
