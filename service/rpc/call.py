"""What is known of the call that runs now: who calls, and what is worth a line of the log at its end."""

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum

from service.errors import Overloaded
from service.rpc.rates import Bucket, Slots
from service.rpc.shares import Share

__all__ = ["ANONYMOUS", "Call", "Caller", "EndedCall", "Scope", "begin_call", "current_call", "is_trusted"]


CHECK_S = 1.0
"""As often as new identities are looked for."""


class Scope(StrEnum):
    """What a caller may do."""

    DETECT = "detect"
    """Ask about images."""
    SCORES = "detect.scores"
    """See exact scores and p-values, where the server reveals them at all."""
    INFO = "info"
    """Ask what the server runs."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who calls."""

    name: str
    """For the log, never a label of a metric."""
    scopes: frozenset[Scope]
    images_per_s: float | None = None
    """Its own rate; None for that of the server, 0 for no limit."""
    burst: float | None = None
    """What it may send at once; None for one second's worth."""


ANONYMOUS = Caller(name="anonymous", scopes=frozenset(Scope))
"""Everybody, where there are no identities: the reveal mode alone says what is shown."""


def is_trusted(caller: Caller) -> bool:
    """Whether somebody gave a caller the scope of scores; where there are no identities, nobody has given anything."""
    return caller is not ANONYMOUS and Scope.SCORES in caller.scopes


@dataclass(kw_only=True, slots=True)
class Call:
    """One RPC; written to by whoever serves it, read when it ends."""

    caller: Caller = ANONYMOUS
    key: str = ""
    """Who shares its limits: the caller's name, or the address of one without."""
    bucket: Bucket | None = None
    """Its caller's rate, where that is limited."""
    slots: Slots | None = None
    """Where it is counted as open."""
    share: Share | None = None
    """What it has under way, where that is limited."""
    check: Callable[[], None] | None = None
    """Raises when its caller may not make it any more; None where there is nothing to ask."""
    next_check: float = 0.0
    """Monotonic time from which that is asked anew."""
    request_id: str = ""
    items: int = 0
    size_bytes: int = 0
    clean: int = 0
    adversarial: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Images without a detection, by reason."""
    model_version: str = ""
    decode_s: float = 0.0
    queue_s: float = 0.0
    inference_s: float = 0.0
    """The longest of its images, as are the two above."""
    verdict_s: float = 0.0
    """Of one image on average, in the slowest group that was judged together."""
    batch_size: int = 0

    def goes_on(self) -> None:
        """Asks again whether the caller may make it, for streams: with each message, once in `CHECK_S` at most.

        Raises:
            Unauthenticated, PermissionRefused: it may not any more.
        """
        if self.check is not None and (now := time.monotonic()) >= self.next_check:
            self.next_check = now + CHECK_S
            self.check()

    async def turn(self) -> None:
        """Waits until its caller may have one more image under way; for calls of one message, before that is read.

        Raises:
            Overloaded: it may not for too long.
        """
        if self.share is not None:
            await self.share.turn()

    def takes(self, *, items: int, size_bytes: int, request_id: str = "") -> None:
        """Notes images that came; once for each message.

        Raises:
            Overloaded: they are too many for its caller's rate, or for its share of the queue.
        """
        if self.share is not None:
            self.share.take(items)
        if self.bucket is not None:
            try:
                self.bucket.take(items)
            except Overloaded:  # what either refuses must cost nothing with the other
                self.gave(items)
                raise
        self.items += items
        self.size_bytes += size_bytes
        self.request_id = self.request_id or request_id

    async def room(self, items: int = 1) -> None:
        """Waits until so many images would be taken; for streams, which are then read no further."""
        while True:
            if self.bucket is not None:
                await self.bucket.room(items)
            if self.share is None or not await self.share.room(items):
                return
            if self.bucket is None or self.bucket.fits(items):  # others may have taken of it meanwhile
                return
            self.share.pass_on()

    def gave(self, items: int) -> None:
        """Notes images of a stream that were answered; those of other calls are when the call ends."""
        if self.share is not None and items:
            self.share.give(items)

    def close(self) -> None:
        """Gives back its share of the queue, and its slot."""
        if self.slots is not None:
            self.slots.give(self.key)
        if self.share is not None:
            self.share.close()

    def failed(self, reason: str) -> None:
        """Notes an image without a detection."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedCall:
    """A call and its end, for the access log and for traces."""

    service: str
    method: str
    code: str
    """Such as `OK`."""
    reason: str
    """Of an error of ours: why an image is refused, else the kind of error."""
    error_id: str
    """Of an unforeseen error; it stands in the log beside its cause."""
    seconds: float
    call: Call
    metadata: Sequence[tuple[str, str | bytes]] = ()
    """As the caller sent it: tokens, too."""


_CURRENT: ContextVar[Call] = ContextVar("call")


def begin_call(caller: Caller) -> Call:
    """A new call, the current one of this task and of those that it starts."""
    call = Call(caller=caller)
    _CURRENT.set(call)
    return call


def current_call() -> Call:
    """The call that this task serves; one of nobody in particular outside of any."""
    call = _CURRENT.get(None)
    return begin_call(ANONYMOUS) if call is None else call
