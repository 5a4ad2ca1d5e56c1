"""One lane of the queue: callers take turns, one image each, whatever any of them has waiting."""

from collections import deque
from typing import Generic, Protocol, TypeVar

__all__ = ["Turns"]


class _OfCaller(Protocol):
    @property
    def key(self) -> str: ...


T = TypeVar("T", bound=_OfCaller)


class Turns(Generic[T]):
    """Round robin by caller, and first in first out for each.

    Images of one queue all have the model's shape and cost the same, so that a turn of one image is deficit round robin
    with a fixed quantum (Shreedhar and Varghese 1995). A newcomer's image runs after one of each caller that waits; and
    since who has had a turn goes behind all who wait, newcomers without end hold nobody up for ever.

    Putting in and taking out cost the same however many wait. A caller is remembered only while it has an image here.
    """

    def __init__(self) -> None:
        self._of: dict[str, deque[T]] = {}
        self._ring: deque[deque[T]] = deque()  # whose turn is next, first
        self._holding: list[int] = []  # callers that have more than so many images
        self.items = 0
        """Images that wait."""

    @property
    def callers(self) -> int:
        """Callers with any."""
        return len(self._ring)

    def held(self, key: str) -> int:
        """Images of a caller."""
        own = self._of.get(key)
        return len(own) if own is not None else 0

    def push(self, item: T) -> None:
        """Puts an image behind those of its caller."""
        own = self._of.get(item.key)
        if own is None:
            own = self._of[item.key] = deque()
            self._ring.append(own)
        held = len(own)
        if held == len(self._holding):
            self._holding.append(1)
        else:
            self._holding[held] += 1
        own.append(item)
        self.items += 1

    def pop(self) -> T:
        """Takes the image whose turn it is; there must be one."""
        own = self._ring.popleft()
        item = own.popleft()
        held = len(own)
        self._holding[held] -= 1
        if not self._holding[held]:
            self._holding.pop()  # it is the last: nobody has more than the most
        if held:
            self._ring.append(own)
        else:
            del self._of[item.key]
        self.items -= 1
        return item

    def first(self) -> T:
        """The image whose turn it is; there must be one."""
        return self._ring[0][0]

    def ahead(self, key: str) -> int:
        """Images that run before one of this caller that comes now.

        Exact for a caller who has none waiting; for another it may be too many by one for each other caller.
        """
        turns = self.held(key) + 1
        if 2 * turns < len(self._holding):  # the shorter part is added up
            return sum(self._holding[:turns])
        return self.items - sum(self._holding[turns:])

    def take_all(self) -> list[T]:
        """Everything, by turns; nothing waits then."""
        return [self.pop() for _ in range(self.items)]
