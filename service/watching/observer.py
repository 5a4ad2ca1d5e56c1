"""The one thread that owns a history, and the queue before it, which never makes a call wait."""

import asyncio
import copy
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from service.detection.types import Bytes8, Scored, gather
from service.errors import Unavailable
from service.history.types import Observation, Query
from service.metrics import HistoryMetrics
from service.watching.types import Kept

__all__ = ["Group", "Observer"]

log = logging.getLogger(__name__)

MOST_ITEMS = 2048
"""Images that may wait; the images of a call that do not fit go unobserved."""
TOGETHER = 64
"""Images that are observed at once; alone an image costs several times as much. Where no answer waits there are some
more or less, up to half as many, so that they end where the history takes what it keeps into its index."""
ENOUGH = TOGETHER + TOGETHER // 2
"""Images that wait for no others to be observed with."""
GATHER_S = 0.2
"""For which others are waited for, where no answer waits."""
STUCK_S = 5.0
"""After which a history is taken for stuck, and nobody waits for it any more."""
TELL_S = 1.0
"""Between two looks at how much is kept."""


class Group:
    """The images of one answer; they are let go as soon as they are observed."""

    __slots__ = ("answer", "client", "images", "now", "scored")

    def __init__(self, client: str, scored: Sequence[Scored], answer: "asyncio.Future[object] | None") -> None:
        """Takes the images out of `scored`, as copies: each may be a part of a message that is far larger."""
        self.client = client
        self.images: list[Bytes8] = [one.image.copy() for one in scored if one.image is not None]
        for one in scored:
            one.image = None
        self.scored = scored
        self.answer = answer
        self.now = time.time()

    def __len__(self) -> int:
        return len(self.scored)

    def behind(self, images: int) -> "Group":
        """A group of its images after the first so many, which stay; no answer must wait for it."""
        rest = copy.copy(self)
        rest.images, rest.scored = self.images[images:], self.scored[images:]
        self.images, self.scored = self.images[:images], self.scored[:images]
        return rest


def _queries(groups: Sequence[Group]) -> list[Query]:
    """What the history wants to know of their images; all at once, since calls with an image each share batches."""
    measured = gather([one for group in groups for one in group.scored])
    rows = zip(
        [(group, image) for group in groups for image in group.images],
        measured.outputs.embedding,
        measured.labels.tolist(),
        measured.margins.tolist(),
        measured.fused_p_value.tolist(),
        strict=True,
    )
    return [
        Query(
            client=group.client,
            image=image,
            embedding=embedding,
            label=label,
            margin=margin,
            p_value=p_value,
            now=group.now,
        )
        for (group, image), embedding, label, margin, p_value in rows
    ]


class Observer:
    """Observes what is put in, in its order, several together."""

    def __init__(
        self,
        history: Kept,
        metrics: HistoryMetrics,
        on_observed: Callable[[Group, list[Observation]], object],
        *,
        loop: asyncio.AbstractEventLoop,
        gathers: bool,
    ) -> None:
        """Starts the thread.

        Args:
            loop: of those who wait for an answer.
            gathers: whether to wait for more images to observe together.
            on_observed: called in the thread with a group and what was seen of it; what it gives goes to the group's
                `answer`.
        """
        self._history = history
        self._metrics = metrics
        self._on_observed = on_observed
        self._loop = loop
        self._waiting: deque[Group] = deque()
        self._orders: deque[Callable[[], None]] = deque()
        self._items = 0
        self._is_closed = False
        self._last: Callable[[], None] | None = None
        self._is_idle = False
        self._gathers = gathers
        self._most = TOGETHER
        """Images that are taken at once."""
        self._changed = threading.Condition()
        self._busy_since: float | None = None
        self._failure = ""
        self._told = 0.0
        self._is_told = True
        self.entries = self.size_bytes = 0
        """Of the history, as it was last looked at."""
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    @property
    def items(self) -> int:
        """Images that wait or are being observed."""
        return self._items

    @property
    def is_stuck(self) -> bool:
        """Whether the history has not come back for too long, or its thread has ended."""
        since = self._busy_since
        return (since is not None and time.monotonic() - since > STUCK_S) or not self._thread.is_alive()

    @property
    def trouble(self) -> str:
        """Why queries go unobserved, or are seen less well than they should be; empty when all is well."""
        if self.is_stuck and not self._is_closed:
            return "the history does not come back; restart the server"
        return self._failure or (self._history.degraded_reason if self._history.is_degraded else "")

    def put(self, group: Group) -> bool:
        """Has a group observed; False, and counted, when too much waits."""
        count = len(group)
        with self._changed:
            if not self._is_closed and (not self._items or self._items + count <= MOST_ITEMS):
                self._waiting.append(group)
                self._items += count
                if self._is_idle or self._items >= (self._most if self._gathers else 1):
                    self._changed.notify()
                return True
        self._metrics.unobserved.inc(count)
        return False

    def order(self, work: Callable[[], None]) -> "Future[None]":
        """Has the thread do something before what waits; for what the history must not be asked by others."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001  # who ordered it gets it
                done.set_exception(error)
            else:
                done.set_result(None)

        with self._changed:
            if self._is_closed:
                done.set_exception(Unavailable("the server is ending"))
            else:
                self._orders.append(run)
                self._changed.notify()
        return done

    def close(self, within_s: float, last: Callable[[], None] | None = None) -> None:
        """Ends the thread when it has observed what waits.

        Args:
            within_s: for which its end is waited for.
            last: what it does before; of the first call.
        """
        with self._changed:
            if not self._is_closed:
                self._last = last
            self._is_closed = True
            self._changed.notify()
        self._thread.join(within_s)

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            for order in taken[0]:
                order()
            if taken[1]:
                self._observe(taken[1])
                self._busy_since, self._is_told = None, False
                room = self._history.room
                with self._changed:
                    self._items -= sum(map(len, taken[1]))
                    if self._gathers:
                        self._most = room if 2 * room >= TOGETHER else room + TOGETHER
            self._look()
        if self._last is not None:
            self._last()
        self._history.close()

    def _take(self) -> tuple[list[Callable[[], None]], list[Group]] | None:
        """Orders and groups to work on, if any; None at the end."""
        with self._changed:
            if not self._waiting and not self._orders and not self._is_closed:
                self._is_idle = True
                self._changed.wait(None if self._is_told else TELL_S)
                self._is_idle = False
            if self._gathers and self._items < self._most and not self._orders and not self._is_closed:
                self._changed.wait(GATHER_S)
            if self._is_closed and not self._waiting and not self._orders:
                return None
            orders = list(self._orders)
            self._orders.clear()
            groups: list[Group] = []
            count = 0
            while self._waiting and count < self._most:
                groups.append(self._waiting.popleft())
                count += len(groups[-1])
            if self._gathers and count > self._most:
                self._waiting.appendleft(groups[-1].behind(len(groups[-1]) - (count - self._most)))
        return orders, groups

    def _look(self) -> None:
        now = time.monotonic()
        if not self._is_told and now - self._told >= TELL_S:
            self._told, self._is_told = now, True
            self.entries, self.size_bytes = len(self._history), self._history.nbytes

    def _observe(self, groups: list[Group]) -> None:
        """Observes groups; after a failure one by one, so that none blinds it for the others."""
        started, count = time.perf_counter(), sum(map(len, groups))
        try:
            seen = iter(self._seen(_queries(groups)))
            answers = [(group.answer, self._on_observed(group, [next(seen) for _ in group.scored])) for group in groups]
        except Exception as error:
            if len(groups) > 1:
                for group in groups:
                    self._observe([group])
                return
            if not self._failure:
                log.exception("the history failed; serving goes on, and these queries are unobserved")
            self._failure = f"the history failed: {type(error).__name__}"
            self._metrics.unobserved.inc(count)
            answers = [(group.answer, None) for group in groups]
        else:
            self._failure = ""
            self._metrics.observed.inc(count)
            self._metrics.seconds.inc(time.perf_counter() - started)
        wanted = [(future, answer) for future, answer in answers if future is not None]
        if wanted:
            try:
                self._loop.call_soon_threadsafe(_tell, wanted)
            except RuntimeError:  # the loop has ended, and with it all calls
                log.debug("nobody waits for the history any more")

    def _seen(self, queries: list[Query]) -> list[Observation]:
        found: list[Observation] = []
        for start in range(0, len(queries), self._most):
            self._busy_since = time.monotonic()
            found += self._history.observe_all(queries[start : start + self._most])
        return found


def _tell(answers: list[tuple["asyncio.Future[object]", object]]) -> None:
    for future, answer in answers:
        if not future.done():
            future.set_result(answer)
