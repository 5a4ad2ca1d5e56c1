"""The queue before the graph: bounded, pulled from by one worker, and never held up by one image.

There is no timer: when the worker is free it takes what waits, at most `max_batch` images. Under load batches fill by
themselves, and without load nobody waits for company.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from service.detection.types import Bytes8, Measurements, Scored, Waiter
from service.errors import AdvsentryError, DeadlinePassed, Overloaded, Unavailable
from service.metrics import Metrics

__all__ = ["Batcher", "QueueLimits"]

log = logging.getLogger(__name__)

IDLE_TURNS = 4
"""Turns of the event loop without a new image after which a batch is taken for complete."""

Measure = Callable[[Bytes8], Measurements]


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
    stuck_s: float = 30.0
    """A run that takes longer, and 10 times longer than the slowest known, is taken for stuck."""


class _Future:
    """A waiter that one coroutine awaits."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
        self.scored = self.future.set_result
        self.failed = self.future.set_exception

    @property
    def is_settled(self) -> bool:
        return self.future.done()


@dataclass(eq=False, slots=True)
class _Waiting:
    image: Bytes8
    deadline: float
    since: float
    waiter: Waiter


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
    ) -> None:
        """Makes an idle queue.

        Args:
            measure: the graph and the calibration, (N, H, W, C) to N rows; runs in `executor`, one call at a time.
            on_health: told False when the worker is stuck or lost, True when a stuck one came back.
        """
        self._measure = measure
        self._executor = executor
        self._limits = limits
        self._metrics = metrics
        self._on_health = on_health
        self._waiting: deque[_Waiting] = deque()
        self._running: Sequence[_Waiting] = ()
        self._size_bytes = 0
        self._slowest_s = 0.0
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
        self._worker = asyncio.create_task(self._work(), name="batcher")
        self._worker.add_done_callback(self._ended)

    def show(self) -> None:
        """Has the metrics tell how long this queue is."""
        self._metrics.queue_items.set_function(lambda: len(self._waiting))
        self._metrics.queue_bytes.set_function(lambda: self._size_bytes)

    async def close(self) -> None:
        """Refuses what comes, finishes what waits, and ends."""
        self._refusing = "the server is shutting down; try another"
        self._draining = True
        self._notify()
        if self._worker is not None:
            await asyncio.wait({self._worker})

    @property
    def is_full(self) -> bool:
        """Whether one more image would be refused."""
        return len(self._waiting) >= self._limits.items or self._size_bytes >= self._limits.size_bytes

    @property
    def is_idle(self) -> bool:
        """Whether no image waits or runs."""
        return not self._waiting and not self._running

    async def room(self) -> None:
        """Waits until an image would not be refused for want of room."""
        while self.is_full and not self._refusing:
            future = asyncio.get_running_loop().create_future()
            self._room.append(future)
            await future

    def submit(self, image: Bytes8, deadline: float) -> "asyncio.Future[Scored]":
        """Puts an image into the queue.

        Args:
            image: (H, W, C) of the model's shape.
            deadline: `time.monotonic()` after which nobody waits for the answer.

        Returns:
            A future of its row; cancel it to leave.

        Raises:
            Overloaded: the queue is full.
            Unavailable: the server does not run images now.
        """
        waiter = _Future()
        self.put(image, deadline, waiter)
        return waiter.future

    def put(self, image: Bytes8, deadline: float, waiter: Waiter) -> None:
        """Puts an image into the queue for a waiter that is called back, which costs less than a future.

        Raises:
            Overloaded, Unavailable: as `submit`; the waiter is told nothing.
        """
        if self._refusing:
            if self._draining:
                self._metrics.dropped["shutdown"].inc()
            raise Unavailable(self._refusing)
        if self.is_full:
            self._metrics.dropped["overload"].inc()
            raise Overloaded(f"the queue is full ({len(self._waiting)} images wait)", retry_after_ms=self._backlog_ms())
        self._waiting.append(_Waiting(image, deadline, time.monotonic(), waiter))
        self._size_bytes += image.nbytes
        self._notify()

    def _backlog_ms(self) -> int:
        runs = len(self._waiting) / self._limits.max_batch
        return max(20, min(5000, int(1000 * runs * max(self._slowest_s, 0.001))))

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                if self._draining:
                    return
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
            await self._let_in()
            # Not cleared when the worker is lost meanwhile: these must be failed then, too.
            self._running = self._form()
            self._metrics.inflight.set(len(self._running))
            if self._running:
                await self._run(self._running)
            self._running = ()
            self._metrics.inflight.set(0)

    async def _let_in(self) -> None:
        """Lets the loop hand over what has arrived already; no timer, and nothing to wait for when it is alone.

        A message costs the loop a few turns, so that the worker would else run off with the first of many.
        """
        size, idle = len(self._waiting), 0
        while idle < IDLE_TURNS and size < self._limits.max_batch:
            await asyncio.sleep(0)
            idle = idle + 1 if len(self._waiting) == size else 0
            size = len(self._waiting)

    def _form(self) -> list[_Waiting]:
        """Takes what waits, without those who left or whose time has passed."""
        batch: list[_Waiting] = []
        now = time.monotonic()
        while self._waiting and len(batch) < self._limits.max_batch:
            item = self._waiting.popleft()
            self._size_bytes -= item.image.nbytes
            if item.waiter.is_settled:
                self._metrics.dropped["cancelled"].inc()
            elif item.deadline <= now:
                self._metrics.dropped["deadline"].inc()
                item.waiter.failed(DeadlinePassed("the deadline passed while the image waited in the queue"))
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

    async def _run(self, batch: Sequence[_Waiting]) -> None:
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
                    if not item.waiter.is_settled:
                        await self._run([item])

    async def _try(self, batch: Sequence[_Waiting]) -> None:
        """Runs a batch in the executor and tells its waiters.

        Raises:
            Exception: whatever the graph raises; nobody is told anything then.
        """
        start = time.monotonic()
        run = asyncio.get_running_loop().run_in_executor(self._executor, self._measure_all, batch)
        limit_s = max(self._limits.stuck_s, 10 * self._slowest_s)
        done, _ = await asyncio.wait({run}, timeout=limit_s)
        if not done:
            self._stuck(limit_s)
        try:
            measured = await run
        finally:  # a run that was taken for stuck may end in an exception, too
            took_s = time.monotonic() - start
            if not done and not self._draining:
                self._unstuck(took_s)
        if done:
            self._slowest_s = max(took_s, 0.999 * self._slowest_s)
        self._metrics.batch_size.observe(len(batch))
        self._metrics.work.ran(len(batch), took_s)
        self._metrics.stage["inference"].observe(took_s)
        for row, item in enumerate(batch):
            if not item.waiter.is_settled:
                item.waiter.scored(Scored(measured, row, start - item.since, took_s, len(batch)))

    def _measure_all(self, batch: Sequence[_Waiting]) -> Measurements:
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
        _fail([*self._running, *self._waiting], Unavailable, why)
        self._metrics.dropped["worker"].inc(len(self._waiting))
        self._waiting.clear()
        self._size_bytes = 0
        self._call_in()

    def _ended(self, worker: "asyncio.Task[None]") -> None:
        error = None if worker.cancelled() else worker.exception()
        if worker.cancelled() or error is not None or not self._draining:
            log.error("the worker ended unexpectedly", exc_info=error)
            self._metrics.worker_restarts.inc()
            self._refuse_all("the server lost its worker; try another")
            self.lost.set()


def _fail(items: Sequence[_Waiting], kind: type[AdvsentryError], why: str) -> None:
    for item in items:
        if not item.waiter.is_settled:
            item.waiter.failed(kind(why))
