"""Several images of one call in the queue, awaited as one."""

import asyncio

from service.detection.types import Scored
from service.errors import AdvsentryError

__all__ = ["Together"]


class _Place:
    """The waiter of one image."""

    __slots__ = ("_together", "outcome")

    def __init__(self, together: "Together") -> None:
        self._together = together
        self.outcome: Scored | AdvsentryError | None = None

    @property
    def is_settled(self) -> bool:
        return self.outcome is not None or self._together.has_left

    def scored(self, row: Scored) -> None:
        self.outcome = row
        self._together.one_more()

    def failed(self, error: AdvsentryError) -> None:
        self.outcome = error
        self._together.one_more()


class Together:
    """Waits for all images of a call; a future and a turn of the loop for each would cost more than their decoding.

    Attributes:
        places: a waiter for each image, for the queue.
        has_left: whether the call has ended, so that none of its images needs to run.
    """

    def __init__(self, count: int) -> None:
        self.places = [_Place(self) for _ in range(count)]
        self.has_left = False
        self._open = count
        self._done = asyncio.Event()
        if not count:
            self._done.set()

    def one_more(self) -> None:
        """Takes note that an image has its outcome."""
        self._open -= 1
        if not self._open:
            self._done.set()

    async def outcomes(self) -> list[Scored | AdvsentryError]:
        """Every image's row, or why there is none, in order."""
        await self._done.wait()
        return [place.outcome for place in self.places if place.outcome is not None]

    def leave(self) -> None:
        """Ends the wait: what has not run by now is dropped from the queue."""
        self.has_left = True
