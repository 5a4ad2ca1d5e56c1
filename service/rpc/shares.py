"""How many images a caller may have under way while others want theirs; what is too much waits in line."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from service.errors import Overloaded
from service.rpc.contention import Contention

__all__ = ["FairShare", "Share"]

TURN_S = 1.0
"""Seconds for which a call waits in its caller's line; refused at once, it would come again at once, and refusals take
the loop as long as answers."""
_RETRY_MS = 50


class FairShare:
    """How many images each caller has under way; while several send, who has `most` gets no more.

    The queue gives callers turns; this bounds what any of them has before it, to be read and decoded. Of calls nobody
    gets more than an equal part of `most`: gRPC hands over one call at a time in the order in which they came, and the
    sooner the less the loop has to do, so that others' calls wait here rather than there behind all of a greedy caller.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes at least 1."""
        self._most = most
        self._clock = clock
        self._held: dict[str, int] = {}  # of callers that hold any
        self._lines: dict[str, OrderedDict[asyncio.Future[None], Callable[[], bool]]] = {}
        self._contention = Contention()

    def fits(self, key: str, items: int) -> bool:
        """Whether a caller may have so many more under way; one who has none may always."""
        return self._fits(key, items, self._most)

    def may_begin(self, key: str) -> bool:
        """Whether a caller may have one more call under way."""
        return self._fits(key, 1, self._part(key))

    def _fits(self, key: str, items: int, most: int) -> bool:
        now = self._clock()
        self._contention.note(key, now)
        held = self._held.get(key, 0)
        return held == 0 or held + items <= most or now >= self._contention.until

    def _part(self, key: str) -> int:
        return self._most // (len(self._held) + (key not in self._held))

    async def room(self, key: str, items: int) -> None:
        """Waits until so many more fit, behind those of the same caller who wait already."""
        await self._wait(key, lambda: self.fits(key, items))

    async def turn(self, key: str) -> None:
        """Waits until one more call may begin, as `room` does."""
        await self._wait(key, lambda: self.may_begin(key))

    async def _wait(self, key: str, may: Callable[[], bool]) -> None:
        is_next = False
        while not may() or (key in self._lines and not is_next):
            await self._stand(key, may, is_next=is_next)
            is_next = True

    async def _stand(self, key: str, may: Callable[[], bool], *, is_next: bool) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._lines.setdefault(key, OrderedDict())
        line[turn] = may
        if is_next:
            line.move_to_end(turn, last=False)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(key, turn)
            else:
                self.call_next(key)  # its turn is another's
            raise

    def _leave(self, key: str, turn: "asyncio.Future[None]") -> None:
        line = self._lines[key]
        del line[turn]
        if not line:
            del self._lines[key]

    def call_next(self, key: str) -> None:
        """Has the first of a caller's line go on, if it may now."""
        for turn, may in self._lines.get(key, {}).items():
            if not turn.done():  # some just leave
                if may():
                    self._leave(key, turn)
                    turn.set_result(None)
                return

    def add(self, key: str, items: int) -> None:
        """Counts images that are under way from now on."""
        self._held[key] = self._held.get(key, 0) + items
        self.call_next(key)

    def remove(self, key: str, items: int) -> None:
        """Counts them no more."""
        left = self._held[key] - items
        if left:
            self._held[key] = left
        else:
            del self._held[key]
        self.call_next(key)


class Share:
    """What one call has under way."""

    __slots__ = ("_all", "_held", "_is_let_in", "_key")

    def __init__(self, everyone: FairShare, key: str) -> None:
        self._all = everyone
        self._key = key
        self._held = 0
        self._is_let_in = False

    async def turn(self) -> None:
        """Waits before the message of a call is read, of which nobody knows yet how many images it holds.

        Raises:
            Overloaded: its caller has too many under way for too long.
        """
        if not self._all.may_begin(self._key):
            try:
                async with asyncio.timeout(TURN_S):
                    await self._all.turn(self._key)
            except TimeoutError:
                raise _too_many() from None
        self._add(1)
        self._is_let_in = True

    def take(self, items: int) -> None:
        """Counts images that came; those of a call that had its turn whatever their number.

        Raises:
            Overloaded: the caller has too many under way while others wait.
        """
        if self._is_let_in:
            self._is_let_in = False
            items -= 1
        elif not self.fits(items):
            raise _too_many()
        if items:
            self._add(items)

    def _add(self, items: int) -> None:
        self._held += items
        self._all.add(self._key, items)

    def fits(self, items: int) -> bool:
        """Whether so many more may be taken now."""
        return self._all.fits(self._key, items)

    async def room(self, items: int) -> None:
        """Waits until they may."""
        await self._all.room(self._key, items)

    def give(self, items: int) -> None:
        """Counts images that were answered."""
        self._held -= items
        self._all.remove(self._key, items)

    def close(self) -> None:
        """Counts all that are left as answered."""
        if self._held:
            self.give(self._held)
        else:
            self._all.call_next(self._key)  # it may have had a turn, and left it


def _too_many() -> Overloaded:
    return Overloaded("too many of your images are under way while others wait", retry_after_ms=_RETRY_MS)
