"""Until when a certificate is valid, and whether a key is its own.

The standard library tells the end of certificates of others only, once a connection stands; so the one field is read
from the encoding (RFC 5280, section 4.1; DER as in X.690).
"""

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["check_pair", "not_after"]

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_FIRST = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def not_after(pem: bytes) -> float:
    """The end of the first certificate in a PEM file, the server's own, as Unix time.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    found = _FIRST.search(pem)
    if found is None:
        raise ValueError("expected -----BEGIN CERTIFICATE-----, found none")
    _, certificate, _ = _element(ssl.PEM_cert_to_DER_cert(found[0].decode("ascii")))
    tag, rest, _ = _element(certificate)  # tbsCertificate
    if tag != _SEQUENCE:
        raise ValueError("the certificate is damaged")
    if rest[:1] == bytes([_VERSION]):
        rest = _element(rest)[2]
    for _ in ("serialNumber", "signature", "issuer"):
        rest = _element(rest)[2]
    _, validity, _ = _element(rest)
    _, _, validity = _element(validity)  # after notBefore
    tag, when, _ = _element(validity)
    return _time(tag, when.decode("ascii"))


def check_pair(certificate: Path, key: Path) -> None:
    """Refuses what gRPC would find out at a handshake only, and not say.

    Raises:
        ValueError: the files are no certificate and key, the key is of another one, or has a password.
    """

    def no_password() -> str:
        raise ValueError(f"key {key}: is encrypted; expected a key without a password")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"key {key} is not the key of certificate {certificate}") from error
        raise ValueError(
            f"expected a certificate in {certificate} and its private key in {key}, both in PEM"
        ) from error


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content and what follows of the element at the start."""
    if len(data) < 2:
        raise ValueError("the certificate is cut short")
    length, start = data[1], 2
    if length & 0x80:  # so many bytes of length follow
        start += length & 0x7F
        length = int.from_bytes(data[2:start])
    if start + length > len(data):
        raise ValueError("the certificate is cut short")
    return data[0], data[start : start + length], data[start + length :]


def _time(tag: int, text: str) -> float:
    if tag == _UTC_TIME:  # two digits of the year, 1950 to 2049
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("the certificate has no end")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
