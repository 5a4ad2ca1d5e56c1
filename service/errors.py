"""What can go wrong, by who can mend it; without a word of transport.

AdvsentryError
├── InvalidRequest    the caller: one image or one option of a request is wrong
├── Unauthenticated   the caller does not show who it is, in a way that the server knows
├── PermissionRefused the caller asks for more than the server reveals
├── UnknownModel      the caller names a model version that is not here
├── BundleError       the operator: a bundle is damaged, foreign or of another version
├── SetupError        the operator: a recipe, a data folder, a setting or a port is wrong
├── Overloaded        time: the queue is full, come back later
├── DeadlinePassed    time: nobody waits for the answer any more
└── Unavailable       time: starting, draining, or the worker is lost
"""

from enum import StrEnum

__all__ = [
    "AdvsentryError",
    "BundleError",
    "DeadlinePassed",
    "ErrorReason",
    "InvalidRequest",
    "Overloaded",
    "PermissionRefused",
    "SetupError",
    "Unauthenticated",
    "Unavailable",
    "UnknownModel",
]


class ErrorReason(StrEnum):
    """Why one image got no detection; the names are part of the wire contract."""

    EMPTY_IMAGE = "EMPTY_IMAGE"
    UNDECODABLE = "UNDECODABLE"
    FORMAT_UNSUPPORTED = "FORMAT_UNSUPPORTED"
    FORMAT_MISMATCH = "FORMAT_MISMATCH"
    TOO_MANY_PIXELS = "TOO_MANY_PIXELS"
    TOO_MANY_BYTES = "TOO_MANY_BYTES"
    WRONG_SIZE = "WRONG_SIZE"
    BAD_TENSOR = "BAD_TENSOR"
    INTERNAL = "INTERNAL"
    OVERLOADED = "OVERLOADED"
    DEADLINE = "DEADLINE"


class AdvsentryError(Exception):
    """Its text is one line for people: what was expected, what came, what to do."""


class InvalidRequest(AdvsentryError):
    """The caller can mend it.

    Attributes:
        reason: what is wrong with an image; None when an option is wrong.
        field: path of the request field at fault, such as `options.target_fpr`; empty when unknown.
    """

    def __init__(self, message: str, *, reason: ErrorReason | None = None, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field


class Unauthenticated(AdvsentryError):
    """The caller shows no token or certificate that the server knows."""


class PermissionRefused(AdvsentryError):
    """The caller asks for something that the reveal mode or its scopes hide."""


class UnknownModel(AdvsentryError):
    """The caller names a model version that this server does not hold."""


class BundleError(AdvsentryError):
    """A bundle cannot be used; names the file and the reason."""


class SetupError(AdvsentryError):
    """A recipe, a data folder, a setting or a port is wrong; the operator can mend it."""


class Overloaded(AdvsentryError):
    """No room or no time for this request now.

    Attributes:
        retry_after_ms: when the caller may try again, in milliseconds.
    """

    def __init__(self, message: str, *, retry_after_ms: int) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class DeadlinePassed(AdvsentryError):
    """The caller's deadline, or the server's own maximum, has passed."""


class Unavailable(AdvsentryError):
    """The server is starting, draining, or has lost its worker."""
