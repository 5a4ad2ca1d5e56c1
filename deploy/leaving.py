"""R-4: of a batch of 8 any subset leaves, at any stage, and the others never notice.

The queue is the real one; the graph gives each image's first pixel back and is held while a stage lasts, so that every
seed meets the stages that it drew, on any machine.
"""

import asyncio
import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from prometheus_client import CollectorRegistry

from service.batching import Batcher, QueueLimits
from service.detection.types import Bytes8, Measurements, Outputs, Scored
from service.metrics import Metrics

__all__ = ["STAGES", "Left", "leave_at_random"]

STAGES = ("queued", "forming", "running", "done")
BATCH = 8
STAYS = 0.5
"""Share of the images that stay."""


@dataclass(kw_only=True)
class Left:
    """What was seen; all is well when nothing is `wrong`."""

    batches: int = 0
    by_stage: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    """How many left at each."""
    stayed: int = 0
    wrong: list[str] = field(default_factory=list)
    """One line for each answer that was wrong, late, or left open, and for each line in the log of errors."""


class _HeldGraph:
    """Gives each image's first pixel; waits in each run until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        """One release for each run."""
        self.runs = 0

    def __call__(self, images: Bytes8) -> Measurements:
        self.runs += 1
        if not self.go.acquire(timeout=60):
            raise TimeoutError("nobody let the graph go")
        values = images[:, 0, 0, 0].astype(float)
        empty = np.zeros((len(values), 1), np.float32)
        outputs = Outputs(logits=empty, embedding=empty, scores=empty)
        return Measurements(
            outputs=outputs, probabilities=values[:, None], p_values=values[:, None], fused_p_value=values
        )


class _Complaints(logging.Handler):
    """Collects errors of the log, and what asyncio has to complain of."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"log: {record.getMessage()}")


def leave_at_random(seeds: Iterable[int], *, kind: type[Batcher] = Batcher, patience_s: float = 30.0) -> Left:
    """Plays one batch for each seed.

    Args:
        kind: the queue; another one only to prove that a fault is seen.
        patience_s: seconds after which one who waits is taken to wait for ever.
    """
    left = Left()
    with _complaints() as complaints, ThreadPoolExecutor(1) as executor:
        asyncio.run(_play_all(seeds, partial(kind, executor=executor), patience_s, left))
        gc.collect()  # asyncio complains of an error that nobody looked at when its future goes
    left.wrong += complaints.lines
    return left


@contextlib.contextmanager
def _complaints() -> Iterator[_Complaints]:
    handler, root = _Complaints(), logging.getLogger()
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)


async def _play_all(seeds: Iterable[int], kind: Callable[..., Batcher], patience_s: float, left: Left) -> None:
    metrics = Metrics(CollectorRegistry())
    for seed in seeds:
        graph = _HeldGraph()
        queue = kind(graph, limits=QueueLimits(max_batch=BATCH), metrics=metrics)
        queue.start()
        try:
            async with asyncio.timeout(patience_s):
                await _play(np.random.default_rng(seed), queue, graph, left)
                await queue.close()
        except TimeoutError:
            left.wrong.append(f"seed {seed}: somebody waits for ever")
        finally:
            graph.go.release(2 * BATCH)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        left.wrong += [f"seed {seed}: left open: {task}" for task in tasks]
        for task in tasks:
            task.cancel()
        left.batches += 1


async def _play(generator: np.random.Generator, queue: Batcher, graph: _HeldGraph, left: Left) -> None:
    first = asyncio.create_task(_ask(queue, 0, is_bulk=False))
    await _until(lambda: graph.runs == 1)  # it runs now, so that those that come wait
    plan = ["" if generator.random() < STAYS else str(generator.choice(STAGES)) for _ in range(BATCH)]
    early = int(generator.integers(1, BATCH + 1))
    is_bulk = generator.random(BATCH) < 0.3
    calls = [asyncio.create_task(_ask(queue, i + 1, is_bulk=bool(is_bulk[i]))) for i in range(early)]
    await asyncio.sleep(0)
    _leave(calls, plan, "queued", left)
    graph.go.release()
    await first
    calls += [asyncio.create_task(_ask(queue, i + 1, is_bulk=bool(is_bulk[i]))) for i in range(early, BATCH)]
    for _ in range(int(generator.integers(0, 6))):  # turns of the loop in which the batch forms
        await asyncio.sleep(0)
    _leave(calls, plan, "forming", left)
    await _until(lambda: graph.runs == 2 or all(call.done() for call in calls))
    _leave(calls, plan, "running", left)
    _leave(calls[early:], plan[early:], "queued", left)  # these came later, and some wait behind that run
    graph.go.release(BATCH)
    for number, (call, stage) in enumerate(zip(calls, plan, strict=True), start=1):
        if stage in ("", "done"):
            left.stayed += 1
            found = await call
            if found != number:
                left.wrong.append(f"image {number} got the answer of {found}")
        else:
            await asyncio.wait({call})
            if not call.cancelled():
                left.wrong.append(f"image {number} left while {stage}, and was answered")
    _leave(calls, plan, "done", left)


async def _ask(queue: Batcher, value: int, *, is_bulk: bool) -> int:
    """What a call does with its image."""
    deadline = time.monotonic() + 60
    async with asyncio.timeout(60):
        scored: Scored = await queue.submit(np.full((2, 2, 1), value, np.uint8), deadline, is_bulk=is_bulk)
    return int(scored.measured.fused_p_value[scored.row])


def _leave(calls: "list[asyncio.Task[int]]", plan: list[str], stage: str, left: Left) -> None:
    for call, planned in zip(calls, plan, strict=False):
        if planned == stage:
            call.cancel()
            left.by_stage[stage] += 1


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.0005)
