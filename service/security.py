"""What the settings say about who is let in: TLS, identities, rates; and what an operator should be warned of."""

import logging
from dataclasses import dataclass
from pathlib import Path

from service.detection.verdict import RevealMode
from service.hosts import is_loopback
from service.metrics import Metrics
from service.rpc.access import Access
from service.rpc.identity import IdentityFile
from service.rpc.rates import Rates, Slots
from service.rpc.server import MAX_CALLS
from service.rpc.shares import FairShare
from service.rpc.tls import ServerTls, TlsFiles
from service.settings import Settings

__all__ = ["Security", "security_of"]

log = logging.getLogger(__name__)

CPU_FAIR_ITEMS = 2
"""Under way while several send: one in the graph and one that is ready. With several more, of a graph of microseconds,
calls of others wait in gRPC behind all of a greedy caller's, and he gets no more images answered for it."""


@dataclass(frozen=True, kw_only=True)
class Security:
    """What the gRPC port is opened with."""

    tls: ServerTls | None
    access: Access


def security_of(settings: Settings, metrics: Metrics) -> Security:
    """Reads the files that the settings name.

    Raises:
        SetupError: a file is missing or wrong, or the settings do not go together.
    """
    files = TlsFiles.of(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    tls = ServerTls(files, tell_end=metrics.tls_expiry.set) if files else None
    asks = tls is not None and tls.asks_for_certificates
    identities = None
    if settings.identities:
        identities = IdentityFile(
            Path(settings.identities),
            takes_tokens=tls is not None or is_loopback(settings.host) or settings.allow_plaintext_tokens,
            takes_certificates=asks,
        )
    _warn(settings, has_identities=asks or identities is not None)
    access = Access(
        identities=identities,
        asks_for_certificates=asks,
        rates=Rates(settings.rate_images_per_s),
        shares=FairShare(settings.fair_items or (CPU_FAIR_ITEMS if settings.device == "cpu" else settings.max_batch)),
        slots=Slots(MAX_CALLS),
    )
    return Security(tls=tls, access=access)


def _warn(settings: Settings, *, has_identities: bool) -> None:
    """Says what is allowed, but seldom meant."""
    if not is_loopback(settings.metrics_host):
        log.warning("metrics listen on %s and show exact p-values: keep that address private", settings.metrics_host)
    if settings.max_image_bytes > settings.max_message_bytes:
        log.warning(
            "no message can carry an image of max_image_bytes %d: max_message_bytes is %d; lower the first or raise "
            "the second",
            settings.max_image_bytes,
            settings.max_message_bytes,
        )
    if not (is_loopback(settings.host) or has_identities):
        log.warning(
            "whoever reaches %s may call: there are neither identities nor client certificates (docs/security.md)",
            settings.host,
        )
        if settings.reveal is RevealMode.SCORES:
            log.warning("and is shown exact scores, along which an attack climbs: --reveal scores wants identities")
