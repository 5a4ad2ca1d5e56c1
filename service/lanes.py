"""What waits for the graph, in two lanes: interactive images first, bulk ones when none waits or their time comes."""

import asyncio
from dataclasses import dataclass

from service.detection.types import Bytes8, Scored, Waiter
from service.turns import Turns

__all__ = ["FutureWaiter", "Lanes", "Waiting"]

AGEING_S = 0.5
"""Bulk images that have waited longer get places of their own."""
BULK_TURN = 4
"""While such a bulk image waits, every fourth place is one; three of four stay with the interactive lane."""


@dataclass(eq=False, slots=True)
class Waiting:
    """An image, and who waits for its row."""

    image: Bytes8
    deadline: float
    """`time.monotonic()` after which nobody waits."""
    since: float
    waiter: Waiter
    is_bulk: bool
    key: str = ""
    """Of its caller, who takes turns with others; those without one take theirs together."""


class FutureWaiter:
    """A waiter that one coroutine awaits."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
        self.scored = self.future.set_result
        self.failed = self.future.set_exception

    @property
    def is_settled(self) -> bool:
        """Whether the future is done, also by its caller's leaving."""
        return self.future.done()


class Lanes:
    """Two queues, in each of which callers take turns."""

    def __init__(self) -> None:
        self._interactive: Turns[Waiting] = Turns()
        self._bulk: Turns[Waiting] = Turns()
        self._turn = 0
        self.items = 0
        """Images that wait, in both."""
        self.size_bytes = 0
        """Of these."""

    @property
    def callers(self) -> int:
        """Callers with images that wait; one with images in both lanes counts as two."""
        return self._interactive.callers + self._bulk.callers

    def held(self, key: str) -> int:
        """Images of a caller that wait."""
        return self._interactive.held(key) + self._bulk.held(key)

    def push(self, item: Waiting) -> None:
        """Puts an image at the end of its caller's in its lane."""
        (self._bulk if item.is_bulk else self._interactive).push(item)
        self.items += 1
        self.size_bytes += item.image.nbytes

    def pop(self, now: float) -> Waiting:
        """Takes the image whose turn it is; there must be one."""
        item = (self._bulk if self._is_bulks_turn(now) else self._interactive).pop()
        self.items -= 1
        self.size_bytes -= item.image.nbytes
        return item

    def _is_bulks_turn(self, now: float) -> bool:
        if not self._bulk.items or not self._interactive.items:
            return bool(self._bulk.items)
        if now - self._bulk.first().since <= AGEING_S:
            return False
        self._turn = (self._turn + 1) % BULK_TURN
        return self._turn == 0

    def ahead(self, key: str = "", *, is_bulk: bool) -> int:
        """Images that run before one of this caller that comes now."""
        if is_bulk:
            return self._interactive.items + self._bulk.ahead(key)
        interactive = self._interactive.ahead(key)
        return interactive + min(self._bulk.items, interactive // (BULK_TURN - 1))

    def take_all(self) -> list[Waiting]:
        """Everything, the interactive lane first; nothing waits then."""
        items = [*self._interactive.take_all(), *self._bulk.take_all()]
        self.items = self.size_bytes = 0
        return items
