"""What waits for the graph, in two lanes: interactive images first, bulk ones when none waits or their time comes."""

import asyncio
from collections import deque
from dataclasses import dataclass

from service.detection.types import Bytes8, Scored, Waiter

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
    """Two queues, first in first out each."""

    def __init__(self) -> None:
        self._interactive: deque[Waiting] = deque()
        self._bulk: deque[Waiting] = deque()
        self._turn = 0
        self.items = 0
        """Images that wait, in both."""
        self.size_bytes = 0
        """Of these."""

    def push(self, item: Waiting) -> None:
        """Puts an image at the end of its lane."""
        (self._bulk if item.is_bulk else self._interactive).append(item)
        self.items += 1
        self.size_bytes += item.image.nbytes

    def pop(self, now: float) -> Waiting:
        """Takes the image whose turn it is; there must be one."""
        item = (self._bulk if self._is_bulks_turn(now) else self._interactive).popleft()
        self.items -= 1
        self.size_bytes -= item.image.nbytes
        return item

    def _is_bulks_turn(self, now: float) -> bool:
        if not self._bulk or not self._interactive:
            return bool(self._bulk)
        if now - self._bulk[0].since <= AGEING_S:
            return False
        self._turn = (self._turn + 1) % BULK_TURN
        return self._turn == 0

    def ahead(self, *, is_bulk: bool) -> int:
        """Images that run before one that comes now."""
        if is_bulk:
            return self.items
        interactive = len(self._interactive)
        return interactive + min(len(self._bulk), interactive // (BULK_TURN - 1))

    def take_all(self) -> list[Waiting]:
        """Everything, the interactive lane first; nothing waits then."""
        items = [*self._interactive, *self._bulk]
        self._interactive.clear()
        self._bulk.clear()
        self.items = self.size_bytes = 0
        return items
