"""Who is told when a call has ended: the access log, and traces."""

from collections.abc import Callable
from contextlib import ExitStack
from urllib.parse import urlsplit

from service.access_log import AccessLog
from service.errors import SetupError
from service.metrics import Metrics
from service.rpc.interceptors import OnEnd
from service.settings import Settings

__all__ = ["listeners"]


def listeners(settings: Settings, metrics: Metrics, to_close: ExitStack) -> tuple[OnEnd, ...]:
    """Those that the settings ask for; they end with `to_close`.

    Raises:
        SetupError: a file cannot be written, an address is none, or a package is missing.
    """
    found: list[OnEnd] = []
    if settings.access_log != "off":
        access_log = AccessLog(
            settings.access_log, sample=settings.access_log_sample, on_dropped=metrics.access_log_dropped.inc
        )
        to_close.callback(access_log.close)
        found.append(access_log.note)
    if settings.otel_endpoint:
        note, close = _tracing(settings.otel_endpoint)
        to_close.callback(close)
        found.append(note)
    return tuple(found)


def _tracing(endpoint: str) -> tuple[OnEnd, Callable[[], None]]:
    if not _is_address(endpoint):
        raise SetupError(f"--otel-endpoint: expected an address such as http://127.0.0.1:4317, got {endpoint!r}")
    try:
        from service.tracing import Tracing
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise SetupError(
            f"--otel-endpoint takes packages that are not installed ({error.name}): pip install 'advsentry[otel]'"
        ) from error
    tracing = Tracing.to(endpoint)
    return tracing.note, tracing.close


def _is_address(endpoint: str) -> bool:
    """Whether it is http or https with a host, and a port that may be.

    >>> [_is_address(text) for text in ("http://localhost:4317", "http://", "http://[::1", "http://a:99999", "a:4317")]
    [True, False, False, False, False]
    """
    try:
        parts = urlsplit(endpoint)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port above 65535, a bracket without its other
        return False
