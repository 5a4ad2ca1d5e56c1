"""Who may join the queue: by items, by bytes, and by whether the answer can come in time."""

import math
from dataclasses import dataclass

from service.errors import DeadlinePassed, Overloaded
from service.lanes import Lanes
from service.metrics import Metrics
from service.pace import Pace

__all__ = ["Admission", "QueueLimits"]

BULK_SHARE = 0.75
"""Of the queue's room that bulk images may fill; the rest is kept for interactive ones."""
SPARE = 1 / 3
"""Of the queue's room, what is added for others when one caller has filled it. A caller may hold 1 / SPARE times what
is free of both: all of the room when nobody else has any, four sevenths when two want all. So nobody is shut out by one
who came before, and nobody need count callers. Source: Choudhury and Hahne 1998, dynamic queue length thresholds."""
PROBE_S = 1.0
"""An idle worker that has run nothing for so long takes one image whatever the estimate says: a wrong estimate would
else refuse for ever."""
PATIENCE = 0.5
"""Of the time that a call has left beside its own run, what it may spend waiting. With all of it an overload would
keep the queue so long that every answer comes at the last moment, and each error of the estimate makes them late."""
LEAST_HINT_MS, MOST_HINT_MS = 20, 5000


@dataclass(frozen=True, kw_only=True)
class QueueLimits:
    """How much may wait and run at once."""

    max_batch: int = 64
    """Images in one run of the graph. 8 and 64 measured alike with a CNN of 0.5 ms an image (stream 1305 and 1351
    images/s, 32 calls p99 35 ms both); for graphs of microseconds what a batch costs by itself counts, so 64."""
    items: int = 1024
    """Images waiting."""
    size_bytes: int = 256 * 2**20
    """Of the images waiting."""
    wait_s: float = 5.0
    """Work waiting, by estimate, above which streams are read no further."""
    stuck_s: float = 30.0
    """A run that takes longer, and 10 times longer than 99 of 100 do, is taken for stuck."""


class Admission:
    """Judges each image at the queue's door, and says when to come back.

    An image is refused at once when what waits before it takes more than half of the time that it has: to let it wait,
    only to come late, would help nobody. Nothing is refused by time before the first run has been timed.
    """

    def __init__(self, limits: QueueLimits, lanes: Lanes, pace: Pace, metrics: Metrics) -> None:
        self._limits = limits
        self._room = (limits.items, limits.size_bytes)
        self._bulk_room = (BULK_SHARE * limits.items, BULK_SHARE * limits.size_bytes)
        self._lanes = lanes
        self._pace = pace
        self._dropped = metrics.dropped
        self._slot = 0.0  # monotonic time that the last refused one was told to come back at
        self.ran = -math.inf
        """Monotonic time at which the last run ended."""
        self.free_at: float | None = None
        """Monotonic time at which the run of now should end; None when the worker is idle."""

    def is_full(self, *, is_bulk: bool, key: str = "") -> bool:
        """Whether there is no room for one more image of a caller."""
        items, size_bytes = self._bulk_room if is_bulk else self._room
        waiting = self._lanes.items
        filled = max(waiting / items, self._lanes.size_bytes / size_bytes)
        if filled < 1:
            return False
        return filled * self._lanes.held(key) / waiting >= (1 + SPARE - filled) / SPARE

    def is_busy(self, *, is_bulk: bool, key: str = "") -> bool:
        """Whether a stream should wait before it puts one more image in."""
        return self.is_full(is_bulk=is_bulk, key=key) or (
            self._lanes.items * self._pace.item_s > self._limits.wait_s
            and self._lanes.ahead(key, is_bulk=is_bulk) * self._pace.item_s > self._limits.wait_s
        )

    def check(self, count: int, deadline: float, now: float, *, is_bulk: bool, key: str = "") -> None:
        """Judges `count` images of one caller; those refused are counted.

        Args:
            deadline: monotonic time by which all must have run.
            key: of the caller.

        Raises:
            Overloaded: there is no room, or too much waits before them.
            DeadlinePassed: the time would not do even for an empty queue.
        """
        rest_s = 0.0 if self.free_at is None else max(0.0, self.free_at - now)  # of the run of now
        if self.is_full(is_bulk=is_bulk, key=key):
            self._dropped["overload"].inc(count)
            hint_ms = self._hint_ms(now, rest_s)
            raise Overloaded(
                f"the queue is full ({self._lanes.items} images wait, {self._lanes.held(key)} of them yours)",
                retry_after_ms=hint_ms,
            )
        left_s, item_s = deadline - now, self._pace.item_s
        more_s = (count - 1) * item_s + self._pace.one_s
        spare_s = PATIENCE * (left_s - more_s)
        if rest_s + self._lanes.items * item_s <= spare_s:  # so it does even if all that waits is before it
            return
        wait_s = rest_s + self._lanes.ahead(key, is_bulk=is_bulk) * item_s
        if wait_s <= spare_s or self._is_probe(now, left_s):
            return
        if more_s > left_s:
            self._dropped["deadline"].inc(count)
            raise DeadlinePassed(_too_late(left_s, more_s))
        self._dropped["overload"].inc(count)
        raise Overloaded(
            f"{1000 * left_s:.0f} ms are left, and what waits takes about {1000 * wait_s:.0f} ms",
            retry_after_ms=self._hint_ms(now, wait_s - spare_s),
        )

    def _is_probe(self, now: float, left_s: float) -> bool:
        return left_s > 0 and self.free_at is None and not self._lanes.items and now - self.ran > PROBE_S

    def _hint_ms(self, now: float, wait_s: float) -> int:
        """When to come back: not before `wait_s`, and each refused one after the one before, at the pace of the graph.

        All told the same time would come together, and nearly all be refused again.
        """
        first = now + (wait_s if self._pace.one_s else 0.1)
        last = first + self._limits.items * self._pace.item_s
        self._slot = min(max(self._slot + self._pace.item_s, first), last)
        return max(LEAST_HINT_MS, min(MOST_HINT_MS, math.ceil(1000 * (self._slot - now))))


def _too_late(left_s: float, more_s: float) -> str:
    if left_s <= 0:
        return "the deadline had passed before the image reached the queue"
    return f"{1000 * left_s:.1f} ms are left, and without waiting it would take about {1000 * more_s:.1f} ms"
