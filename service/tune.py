"""Measures this machine with one bundle: how many threads, images in a batch and processes serve the most images.

What is timed is a run of the graph with its p-values, plus handing a batch to the graph's thread, which is what a batch
costs by itself. Other work on a machine only ever makes a measurement worse, so every point is measured several times,
in turns with all others, and its best counts. Graphs that share the processors are timed by rounds, not by runs: one
may be fast only because another had to wait.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.detection.bundle import load_bundle
from service.detection.engine import Engine
from service.detection.processors import cpu_quota
from service.detection.providers import CPU, Device

__all__ = ["BATCHES", "Crowd", "Point", "Tuned", "best_batch", "best_threads", "best_workers", "tune"]

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
ROUNDS = 5
WITHIN = 0.95
"""Of the best rate: what reaches it with less is chosen."""
LONGEST_RUN = 0.02
"""Of the time for all: a batch that takes longer is not tried, nor are larger ones."""
MOST_WORKERS = 16
"""Each holds the bundle in memory."""
HAND_OVERS = 200

Run = Callable[[int], None]
"""Runs the graph once on so many images."""
Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One way to run the graph, at its best."""

    threads: int
    """Of one run; 0 on a GPU, where they do not count."""
    batch: int
    batch_ms: float
    """From handing it over to its p-values."""

    @property
    def images_per_s(self) -> float:
        """What one process gives that runs nothing but such batches."""
        return 1000 * self.batch / self.batch_ms


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """So many graphs at work at the same time."""

    workers: int
    threads: int
    """Of each."""
    images_per_s: float
    """Of all together."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What was measured, and the settings that follow."""

    bundle: str
    provider: str
    processors: int
    hand_over_ms: float
    """What a batch costs beside the graph and its p-values; part of each point."""
    points: tuple[Point, ...]
    crowds: tuple[Crowd, ...]
    """By workers; the first is one process with all the threads that pay."""
    threads: int
    max_batch: int
    workers: int


def tune(path: Path, *, device: Device = "cpu", seconds: float = 10.0) -> Tuned:
    """Measures a bundle on this machine for about so many seconds; longer where a single batch takes long.

    Raises:
        BundleError: it cannot be used.
        SetupError: the device does not come up.
    """
    bundle, processors = load_bundle(path), cpu_quota()
    first = Engine(bundle, device=device, threads=1)
    on_cpu = first.graph.provider == CPU
    counts = thread_counts(processors) if on_cpu else (0,)
    runs = {count: _runner(first if count < 2 else Engine(bundle, threads=count)) for count in counts}
    hand_over_s = asyncio.run(_hand_over_s())
    points = measure_points(runs, BATCHES, seconds=0.8 * seconds, extra_s=hand_over_s)
    threads = best_threads(points)
    batch = best_batch([point for point in points if point.threads == threads])
    crowds = []
    for workers in thread_counts(min(processors, MOST_WORKERS)) if on_cpu else (1,):
        each = threads if workers == 1 else max(1, processors // workers)
        crowd = [runs[threads]] if workers == 1 else [_runner(Engine(bundle, threads=each)) for _ in range(workers)]
        rate = _crowd_rate(crowd, batch, seconds=0.2 * seconds / len(counts), extra_s=hand_over_s)
        crowds.append(Crowd(workers=workers, threads=each, images_per_s=rate))
    chosen = best_workers(crowds)
    return Tuned(
        bundle=bundle.manifest.name,
        provider=first.graph.provider,
        processors=processors,
        hand_over_ms=1000 * hand_over_s,
        points=tuple(points),
        crowds=tuple(crowds),
        threads=chosen.threads,
        max_batch=batch,
        workers=chosen.workers,
    )


def thread_counts(processors: int) -> tuple[int, ...]:
    """Numbers of threads to try: doubled from 1 up to all processors.

    >>> thread_counts(6)
    (1, 2, 4, 6)
    """
    return (*(1 << power for power in range(processors.bit_length()) if 1 << power < processors), processors)


def measure_points(
    runs: Mapping[int, Run],
    batches: Sequence[int],
    *,
    seconds: float,
    extra_s: float = 0.0,
    clock: Clock = time.perf_counter,
) -> list[Point]:
    """Times each number of threads with each size of a batch.

    Args:
        runs: by number of threads.
        batches: rising.
        seconds: for all together.
        extra_s: added to each batch.
    """
    places = [
        (threads, batch)
        for threads, run in runs.items()
        for batch in _bearable(run, batches, LONGEST_RUN * seconds, clock)
    ]
    best_s = dict.fromkeys(places, math.inf)
    share_s = seconds / (ROUNDS * len(places))
    for _ in range(ROUNDS):
        for threads, batch in places:
            best_s[threads, batch] = min(best_s[threads, batch], *_times_s(runs[threads], batch, share_s, clock))
    return [
        Point(threads=threads, batch=batch, batch_ms=1000 * (took_s + extra_s))
        for (threads, batch), took_s in best_s.items()
    ]


def _bearable(run: Run, batches: Sequence[int], longest_s: float, clock: Clock) -> list[int]:
    """Warms each size; ends at the first that takes too long, but has one at least."""
    found: list[int] = []
    for batch in batches:
        run(batch)
        if found and min(_times_s(run, batch, 0, clock) + _times_s(run, batch, 0, clock)) > longest_s:
            break
        found.append(batch)
    return found


def _times_s(run: Run, batch: int, seconds: float, clock: Clock) -> list[float]:
    """Of each run in so much time; at least one."""
    found, ends = list[float](), clock() + seconds
    while not found or clock() < ends:
        began = clock()
        run(batch)
        found.append(clock() - began)
    return found


def best_threads(points: Sequence[Point]) -> int:
    """The fewest threads that reach the best rate, or nearly."""
    enough = WITHIN * max(point.images_per_s for point in points)
    return min(point.threads for point in points if point.images_per_s >= enough)


def best_batch(points: Sequence[Point]) -> int:
    """The smallest batch that reaches the best rate, or nearly: a larger one only makes its images wait."""
    enough = WITHIN * max(point.images_per_s for point in points)
    return min(point.batch for point in points if point.images_per_s >= enough)


def best_workers(crowds: Sequence[Crowd]) -> Crowd:
    """The fewest processes that reach the best rate, or nearly: each holds the bundle once more."""
    enough = WITHIN * max(crowd.images_per_s for crowd in crowds)
    return min((crowd for crowd in crowds if crowd.images_per_s >= enough), key=lambda crowd: crowd.workers)


def _runner(engine: Engine) -> Run:
    shape = engine.bundle.manifest.input
    size = (max(BATCHES), shape.height, shape.width, shape.channels)
    images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)

    def run(count: int) -> None:
        engine.measure(images[:count])

    return run


def _crowd_rate(crowd: Sequence[Run], batch: int, *, seconds: float, extra_s: float) -> float:
    """Images a second of graphs that run at the same time, at their best of some rounds."""
    return max(_crowd_round(crowd, batch, seconds / ROUNDS, extra_s) for _ in range(ROUNDS))


def _crowd_round(crowd: Sequence[Run], batch: int, seconds: float, extra_s: float) -> float:
    together = threading.Barrier(len(crowd))

    def one(run: Run) -> float:
        run(batch)
        together.wait()
        times_s = _times_s(run, batch, seconds, time.perf_counter)
        return batch / (sum(times_s) / len(times_s) + extra_s)

    with ThreadPoolExecutor(len(crowd)) as pool:
        return sum(pool.map(one, crowd))


async def _hand_over_s() -> float:
    """Seconds from the event loop to the graph's thread and back, at its best."""
    loop, best_s = asyncio.get_running_loop(), math.inf
    with ThreadPoolExecutor(1) as thread:
        for _ in range(HAND_OVERS):
            began = time.perf_counter()
            await loop.run_in_executor(thread, time.perf_counter)
            best_s = min(best_s, time.perf_counter() - began)
    return best_s
