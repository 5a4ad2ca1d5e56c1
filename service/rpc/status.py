"""Each error class to its gRPC code, and back; once, at the edge."""

from collections.abc import Mapping
from typing import TypeAlias

import grpc

from service.errors import (
    AdvsentryError,
    BundleError,
    DeadlinePassed,
    ErrorReason,
    InvalidRequest,
    Overloaded,
    PermissionRefused,
    SetupError,
    Unauthenticated,
    Unavailable,
    UnknownModel,
)
from service.rpc import details

__all__ = ["CODES", "REASON_KEY", "code_of", "error_of", "item_reason", "text_of", "times_trailers", "trailers_of"]

CODES: dict[type[AdvsentryError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionRefused: grpc.StatusCode.PERMISSION_DENIED,
    UnknownModel: grpc.StatusCode.NOT_FOUND,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    BundleError: grpc.StatusCode.INTERNAL,  # the operator's, no call should meet them
    SetupError: grpc.StatusCode.INTERNAL,
    AdvsentryError: grpc.StatusCode.INTERNAL,
}

REASON_KEY = "x-advsentry-reason"
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_MAX_TEXT = 1000  # characters of a status text; headers are not for essays

Trailers: TypeAlias = tuple[tuple[str, str | bytes], ...]


def code_of(error: AdvsentryError) -> grpc.StatusCode:
    """The gRPC code of an error."""
    return CODES[type(error)]


def text_of(error: AdvsentryError) -> str:
    """The status text of an error."""
    return str(error)[:_MAX_TEXT]


def trailers_of(error: AdvsentryError) -> Trailers:
    """What the trailing metadata says beside code and text."""
    number: int = code_of(error).value[0]
    rich = (details.KEY, details.status_bytes(number, text_of(error), error))
    if isinstance(error, InvalidRequest) and error.reason is not None:
        return (REASON_KEY, error.reason.value), rich
    if isinstance(error, Overloaded):
        return (_PUSHBACK_KEY, str(error.retry_after_ms)), rich
    return (rich,)


def times_trailers(queue_s: float, inference_s: float, batch_size: int) -> Trailers:
    """What the trailing metadata of a unary call says of its images."""
    if not batch_size:
        return _NO_TIMES
    return (
        ("x-advsentry-queue-ms", f"{1000 * queue_s:.3f}"),
        ("x-advsentry-infer-ms", f"{1000 * inference_s:.3f}"),
        ("x-advsentry-batch", str(batch_size)),
    )


_NO_TIMES: Trailers = (
    ("x-advsentry-queue-ms", "0.000"),
    ("x-advsentry-infer-ms", "0.000"),
    ("x-advsentry-batch", "0"),
)
"""Of a call whose images did not run."""


def item_reason(error: AdvsentryError) -> tuple[ErrorReason, bool]:
    """The reason of an image that failed among others, and whether it may succeed later."""
    if isinstance(error, InvalidRequest) and error.reason is not None:
        return error.reason, False
    if isinstance(error, Overloaded | Unavailable):
        return ErrorReason.OVERLOADED, True
    if isinstance(error, DeadlinePassed):
        return ErrorReason.DEADLINE, True
    return ErrorReason.INTERNAL, False


def error_of(code: grpc.StatusCode, text: str, trailers: Mapping[str, str | bytes]) -> AdvsentryError:
    """The error that a status stands for, for clients."""
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        reason = trailers.get(REASON_KEY, "")
        return InvalidRequest(text, reason=ErrorReason(reason) if reason in set(ErrorReason) else None)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if _PUSHBACK_KEY not in trailers and "larger than max" in text:  # gRPC's own words; later it is as large
            return InvalidRequest(text, reason=ErrorReason.TOO_MANY_BYTES)
        return Overloaded(text, retry_after_ms=int(trailers.get(_PUSHBACK_KEY, "0")))
    if code is grpc.StatusCode.CANCELLED:  # gRPC's own word for a call that the server had not taken yet
        return Unavailable(
            "the server cancelled the call, as one does that is shutting down or overrun; try another, or later"
        )
    for kind, known in CODES.items():
        if known is code and kind not in (BundleError, SetupError, AdvsentryError):
            return kind(text)
    return AdvsentryError(f"{code.name}: {text}")
