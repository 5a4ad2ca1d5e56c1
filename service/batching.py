"""The worker behind the queue: it takes what waits when it is free, and is never held up by one image.

Nothing waits for company: at most `max_batch` images of those that wait run together, and fewer while several callers
send: see `QUANTUM_S`. Under load batches fill by themselves, and without load nobody waits for company. Who may join:
`admission.py`; whose turn it is: `lanes.py`.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

import numpy as np

from service.admission import Admission, QueueLimits
from service.detection.types import Bytes8, Measurements, Scored, Waiter
from service.errors import AdvsentryError, DeadlinePassed, Unavailable
from service.lanes import FutureWaiter, Lanes, Waiting
from service.metrics import Metrics
from service.pace import Pace
from service.rpc.contention import Contention

__all__ = ["Batcher", "QueueLimits"]

log = logging.getLogger(__name__)

QUANTUM_S = 0.001
"""While several callers send, what each who waits may add to a run, in seconds; one image at least."""
IDLE_TURNS = 4
"""Turns of the event loop without a new image after which a batch is taken for complete."""
QUIET_TURNS = 6
"""Turns without a new call or message after which, while several callers send, everybody is taken to have come; gRPC
needs four turns to hand over a call, and hands over one at a time."""
LET_IN_S = 0.002
"""For which they are waited for at most."""

Measure = Callable[[Bytes8], Measurements]


class Batcher:
    """Queue and worker; used from one event loop.

    Every waiter is told: its row, or an error that says whose fault it was. Nothing that one caller does (cancel, send
    what the graph cannot run, leave) touches another's.
    """

    def __init__(
        self,
        measure: Measure,
        executor: Executor,
        *,
        limits: QueueLimits,
        metrics: Metrics,
        on_health: Callable[[bool], None] = lambda _: None,
        keeps_images: bool = False,
    ) -> None:
        """Makes an idle queue.

        Args:
            measure: the graph and the calibration, (N, H, W, C) to N rows; runs in `executor`, one call at a time.
            on_health: told False when the worker is stuck or lost, True when a stuck one came back.
            keeps_images: whether a waiter gets its image with its row.
        """
        self._measure = measure
        self._executor = executor
        self._limits = limits
        self._metrics = metrics
        self._lanes = Lanes()
        self._contention = Contention()
        self._on_health = on_health
        self._keeps_images = keeps_images
        self._pace = Pace(limits.max_batch)
        self._admission = Admission(limits, self._lanes, self._pace, metrics)
        self._running: Sequence[Waiting] = ()
        self._begun = 0.0  # monotonic time since which the worker has had something to do
        self._refusing = "the server is starting; try again"
        self._draining = False
        self._wake: asyncio.Future[None] | None = None
        self._room: deque[asyncio.Future[None]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self.lost = asyncio.Event()

    def start(self) -> None:
        """Starts the worker."""
        self.show()
        self._refusing = ""
        self._begun = time.monotonic()
        self._worker = asyncio.create_task(self._work(), name="batcher")
        self._worker.add_done_callback(self._ended)

    def show(self) -> None:
        """Has the metrics tell how long this queue is."""
        self._metrics.queue_items.set_function(lambda: self._lanes.items)
        self._metrics.queue_bytes.set_function(lambda: self._lanes.size_bytes)

    async def close(self) -> None:
        """Refuses what comes, finishes what waits, and ends."""
        self._refusing = "the server is shutting down; try another"
        self._draining = True
        self._notify()
        if self._worker is not None:
            await asyncio.wait({self._worker})

    def learn(self, took_s: Mapping[int, float]) -> None:
        """Takes note of runs before the start, so that the first calls are judged by time, too.

        Args:
            took_s: seconds of a run, by its images.
        """
        for size, seconds in took_s.items():
            self._pace.note(size, seconds)

    @property
    def is_full(self) -> bool:
        """Whether one more interactive image would be refused for want of room."""
        return self._admission.is_full(is_bulk=False)

    @property
    def is_idle(self) -> bool:
        """Whether no image waits or runs."""
        return not self._lanes.items and not self._running

    def is_busy(self, *, is_bulk: bool = False, key: str = "") -> bool:
        """Whether so much waits that a stream of this caller should not put one more image in.

        Not when nothing is taken at all: there is nothing to wait for then.
        """
        return not self._refusing and self._admission.is_busy(is_bulk=is_bulk, key=key)

    async def room(self, *, is_bulk: bool = False, key: str = "") -> None:
        """Waits until the queue is not busy for that lane and caller, or takes nothing at all."""
        while self.is_busy(is_bulk=is_bulk, key=key):
            future = asyncio.get_running_loop().create_future()
            self._room.append(future)
            await future

    def admit(self, count: int, deadline: float, *, is_bulk: bool = False, key: str = "") -> None:
        """Judges a call of several images as one, before any of them is put in.

        Raises:
            Overloaded, DeadlinePassed, Unavailable: as `put`.
        """
        self._check_open(count)
        self._admission.check(count, deadline, time.monotonic(), is_bulk=is_bulk, key=key)

    def submit(
        self, image: Bytes8, deadline: float, *, is_bulk: bool = False, is_admitted: bool = False, key: str = ""
    ) -> "asyncio.Future[Scored]":
        """Puts an image into the queue.

        Args:
            image: (H, W, C) of the model's shape.
            deadline: `time.monotonic()` after which nobody waits for the answer.
            is_bulk: whether interactive images go before it.
            is_admitted: whether `admit` has judged it already.
            key: of the caller, who takes turns with others.

        Returns:
            A future of its row; cancel it to leave.

        Raises:
            Overloaded: the queue is full, or what waits in it would take this image past its deadline.
            DeadlinePassed: so would its own run.
            Unavailable: the server does not run images now.
        """
        waiter = FutureWaiter()
        self.put(image, deadline, waiter, is_bulk=is_bulk, is_admitted=is_admitted, key=key)
        return waiter.future

    def put(
        self,
        image: Bytes8,
        deadline: float,
        waiter: Waiter,
        *,
        is_bulk: bool = False,
        is_admitted: bool = False,
        key: str = "",
    ) -> None:
        """Puts an image into the queue for a waiter that is called back, which costs less than a future.

        Raises:
            Overloaded, DeadlinePassed, Unavailable: as `submit`; the waiter is told nothing.
        """
        now = time.monotonic()
        if self._refusing:
            self._check_open(1)
        if not is_admitted:
            self._admission.check(1, deadline, now, is_bulk=is_bulk, key=key)
        self._contention.note(key, now)
        self._lanes.push(Waiting(image, deadline, now, waiter, is_bulk, key))
        self._notify()

    def _check_open(self, count: int) -> None:
        if self._refusing:
            if self._draining:
                self._metrics.dropped["shutdown"].inc(count)
            raise Unavailable(self._refusing)

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _work(self) -> None:
        while True:
            while not self._lanes.items:
                if self._draining:
                    return
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
                self._begun = time.monotonic()
            await self._let_in()
            # Not cleared when the worker is lost meanwhile: these must be failed then, too.
            self._running = self._form()
            self._metrics.inflight.set(len(self._running))
            if self._running:
                await self._run(self._running)
            self._running = ()
            self._metrics.inflight.set(0)

    async def _let_in(self) -> None:
        """Lets the loop hand over what has arrived already, and waits for nothing else.

        A message costs the loop a few turns, so that the worker would else run off with the first of many. While
        several callers send, calls are waited for, too: those that gRPC has not handed over yet wait there in the order
        in which they came, behind all of a greedy caller, and only what was handed over can have its turn.
        """
        if self._is_contended:
            await self._let_everybody_in()
            return
        size, idle = self._lanes.items, 0
        while idle < IDLE_TURNS and size < self._limits.max_batch:
            await asyncio.sleep(0)
            idle = idle + 1 if self._lanes.items == size else 0
            size = self._lanes.items

    async def _let_everybody_in(self) -> None:
        arrivals, ends = self._metrics.arrivals, time.monotonic() + LET_IN_S
        came, quiet = arrivals.count, 0
        while quiet < QUIET_TURNS and self._lanes.items < self._limits.max_batch and time.monotonic() < ends:
            await asyncio.sleep(0)
            quiet = quiet + 1 if arrivals.count == came else 0
            came = arrivals.count

    @property
    def _is_contended(self) -> bool:
        return time.monotonic() < self._contention.until

    def _most(self) -> int:
        """Images of the next run: while several callers send, no more than a quantum of each who waits.

        A run cannot be broken off: who comes while one of a greedy caller goes on waits for its end.
        """
        if not self._is_contended:
            return self._limits.max_batch
        return min(self._limits.max_batch, max(1, self._lanes.callers) * self._pace.more_within(QUANTUM_S))

    def _form(self) -> list[Waiting]:
        """Takes what waits, without those who left or whose time has passed."""
        batch: list[Waiting] = []
        now, most = time.monotonic(), self._most()
        while len(batch) < most and self._lanes.items:
            item = self._lanes.pop(now)
            if item.deadline <= now:  # looked at first: a caller whose time is up has mostly left, too
                self._metrics.dropped["deadline"].inc()
                _fail((item,), DeadlinePassed, "the deadline passed while the image waited in the queue")
            elif item.waiter.is_settled:
                self._metrics.dropped["cancelled"].inc()
            else:
                batch.append(item)
        self._call_in()
        return batch

    def _call_in(self) -> None:
        """Wakes those who wait for room; each looks again for himself."""
        while self._room:
            waiter = self._room.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def _run(self, batch: Sequence[Waiting]) -> None:
        """Runs a batch; after a failure again, image by image, so that only the poison fails."""
        try:
            await self._try(batch)
        except Exception:
            if len(batch) == 1:
                log.exception("an image could not be run")
                _fail(batch, AdvsentryError, "the graph failed on this image; the server's log says how")
            else:
                log.warning("a batch of %d failed, its images run one by one", len(batch))
                for item in batch:
                    if item.deadline <= time.monotonic():
                        _fail((item,), DeadlinePassed, "the deadline passed while the images of a batch ran one by one")
                    elif not item.waiter.is_settled:
                        await self._run((item,))

    async def _try(self, batch: Sequence[Waiting]) -> None:
        """Runs a batch in the executor and tells its waiters.

        Raises:
            Exception: whatever the graph raises; nobody is told anything then.
        """
        start = time.monotonic()
        self._admission.free_at = start + self._pace.seconds(len(batch))
        run = asyncio.get_running_loop().run_in_executor(self._executor, self._measure_all, batch)
        limit_s = max(self._limits.stuck_s, 10 * self._pace.slow_s)
        done, _ = await asyncio.wait({run}, timeout=limit_s)
        if not done:
            self._stuck(limit_s)
        try:
            measured = await run
        finally:  # a run that was taken for stuck may end in an exception, too
            self._admission.ran = end = time.monotonic()
            self._admission.free_at = None
            took_s, turn_s = end - start, end - self._begun
            self._begun = end
            if not done and not self._draining:
                self._unstuck(took_s)
        if done:
            self._pace.note(len(batch), turn_s)  # not `took_s`: what the loop does between two runs counts, too
        self._metrics.batch_size.observe(len(batch))
        self._metrics.work.ran(len(batch), took_s)
        for row, item in enumerate(batch):
            if not item.waiter.is_settled:
                image = item.image if self._keeps_images else None
                item.waiter.scored(Scored(measured, row, start - item.since, took_s, len(batch), image))

    def _measure_all(self, batch: Sequence[Waiting]) -> Measurements:
        return self._measure(np.stack([item.image for item in batch]))

    def _stuck(self, limit_s: float) -> None:
        log.error("a batch has run for more than %.1f s; new images are refused until it ends", limit_s)
        self._refuse_all("the worker is stuck; try another server")

    def _unstuck(self, took_s: float) -> None:
        log.warning("the stuck batch ended after %.1f s", took_s)
        self._refusing = ""
        self._on_health(True)

    def _refuse_all(self, why: str) -> None:
        self._refusing = why
        self._on_health(False)
        waiting = self._lanes.take_all()
        _fail((*self._running, *waiting), Unavailable, why)
        self._metrics.dropped["shutdown"].inc(len(waiting))
        self._call_in()

    def _ended(self, worker: "asyncio.Task[None]") -> None:
        error = None if worker.cancelled() else worker.exception()
        if worker.cancelled() or error is not None or not self._draining:
            log.error("the worker ended unexpectedly", exc_info=error)
            self._metrics.worker_restarts.inc()
            self._refuse_all("the server lost its worker; try another")
            self.lost.set()


def _fail(items: Sequence[Waiting], kind: type[AdvsentryError], why: str) -> None:
    for item in items:
        if not item.waiter.is_settled:
            item.waiter.failed(kind(why))
