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
    Only callers with images that have come make the parts smaller, or a few who send nothing could.

    A caller's calls and streams wait in one line, and nobody goes past it: streams may have more under way than calls,
    which would else never get their turn beside them.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes at least 1."""
        self._most = most
        self._clock = clock
        self._held: dict[str, int] = {}  # of callers that hold any; one for each call whose message has yet to come
        self._came: dict[str, int] = {}  # of these, the images that have come
        self._lines: dict[str, OrderedDict[asyncio.Future[None], Callable[[], bool]]] = {}
        self._contention = Contention()

    def fits(self, key: str, items: int) -> bool:
        """Whether a caller may have so many more under way; one who has none may always."""
        return self._fits(key, items, self._most)

    def _begins(self, key: str) -> bool:
        return self._fits(key, 1, self._part(key))

    def _fits(self, key: str, items: int, most: int) -> bool:
        now = self._clock()
        self._contention.note(key, now)
        held = self._held.get(key, 0)
        return held == 0 or held + items <= most or now >= self._contention.until

    def _part(self, key: str) -> int:
        return self._most // (len(self._came) + (key not in self._came))

    def may_begin(self, key: str) -> bool:
        """Whether a caller may have one more call under way, and has none that waits for it."""
        return key not in self._lines and self._begins(key)

    async def room(self, key: str, items: int) -> bool:
        """Waits until so many more fit, behind those of the same caller who wait already.

        Returns:
            Whether it had to wait. Who does not use its turn then leaves it to others with `call_next`.
        """
        return await self._wait(key, lambda: self.fits(key, items))

    async def turn(self, key: str) -> None:
        """Waits until one more call may begin, as `room` does."""
        await self._wait(key, lambda: self._begins(key))

    async def _wait(self, key: str, may: Callable[[], bool]) -> bool:
        if key not in self._lines and may():
            return False
        await self._stand(key, may, is_next=False)
        while not may():
            await self._stand(key, may, is_next=True)
        return True

    async def _stand(self, key: str, may: Callable[[], bool], *, is_next: bool) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._lines.setdefault(key, OrderedDict())
        line[turn] = may
        if is_next:
            line.move_to_end(turn, last=False)
        else:
            self.call_next(key)  # what kept the first waiting may have passed by itself, as a contention does
        try:
            await turn
        except asyncio.CancelledError:
            self._leave(key, turn)
            self.call_next(key)  # its turn is another's
            raise
        self._leave(key, turn)

    def _leave(self, key: str, turn: "asyncio.Future[None]") -> None:
        line = self._lines[key]
        del line[turn]
        if not line:
            del self._lines[key]

    def call_next(self, key: str) -> None:
        """Has the first of a caller's line go on, if it may now; it stays in line until it does."""
        for turn, may in self._lines.get(key, {}).items():
            if not turn.cancelled():  # some just leave
                if not turn.done() and may():
                    turn.set_result(None)
                return

    def change(self, key: str, held: int, came: int) -> None:
        """Counts more images, or fewer, that are under way, and those of them that have come."""
        _add(self._held, key, held)
        _add(self._came, key, came)
        self.call_next(key)


def _add(counts: dict[str, int], key: str, items: int) -> None:
    left = counts.get(key, 0) + items
    if left:
        counts[key] = left
    else:
        counts.pop(key, None)


class Share:
    """What one call has under way."""

    __slots__ = ("_all", "_held", "_is_let_in", "_key")

    def __init__(self, everyone: FairShare, key: str) -> None:
        self._all = everyone
        self._key = key
        self._held = 0
        self._is_let_in = False  # and its message has yet to come

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
        self._is_let_in = True
        self._change(1, 0)

    def take(self, items: int) -> None:
        """Counts images that came; those of a call that had its turn whatever their number.

        Raises:
            Overloaded: the caller has too many under way while others wait.
        """
        if self._is_let_in:
            self._is_let_in = False
            self._change(items - 1, items)
        elif self._all.fits(self._key, items):
            self._change(items, items)
        else:
            raise _too_many()

    def _change(self, held: int, came: int) -> None:
        self._held += held
        self._all.change(self._key, held, came)

    async def room(self, items: int) -> bool:
        """Waits until so many more may be taken; see `FairShare.room`."""
        return await self._all.room(self._key, items)

    def pass_on(self) -> None:
        """Leaves a turn that `room` gave to the next."""
        self._all.call_next(self._key)

    def give(self, items: int) -> None:
        """Counts images that were answered."""
        self._change(-items, -items)

    def close(self) -> None:
        """Counts all that are left as answered, and leaves a turn that it did not use to the next."""
        is_awaited, self._is_let_in = self._is_let_in, False
        self._change(-self._held, is_awaited - self._held)


def _too_many() -> Overloaded:
    return Overloaded("too many of your images are under way while others wait", retry_after_ms=_RETRY_MS)
