"""One serving process as a queue, and many of them behind a balancer, simulated.

A process runs what waits, up to a batch's size, each image costing the same; all of a batch are answered when their run
ends. Who would wait longer than his deadline allows is refused at the door, as `service/admission.py` does. What the
event loop does beside a run is in the cost of an image. docs/capacity.md holds the model against a measured load test.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.detection.types import Float64s

__all__ = ["Outcome", "Process", "by_call", "by_connection", "highest_share", "served", "zipf"]

PATIENCE = 0.5
"""Share of a deadline that may be spent waiting for what came before."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """What a process is."""

    image_s: float
    """Processor time of an image, on its one core."""
    max_batch: int
    deadline_s: float

    @property
    def capacity(self) -> float:
        """Images a second at most."""
        return 1 / self.image_s


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What callers of a fleet get."""

    p50_s: float
    p99_s: float
    """Both of answered calls; infinite where there are none."""
    refused: float
    """Share of the calls."""
    hottest: float
    """Load of the busiest process to the mean."""


def served(process: Process, arrivals: Sequence[float]) -> list[float]:
    """Seconds until each answered call has its answer; those that are refused are left out.

    Args:
        arrivals: seconds, rising; a call is one image.
    """
    answered: list[float] = []
    waiting: deque[float] = deque()
    free = 0.0  # when the run that goes on ends
    patience = PATIENCE * process.deadline_s

    def run(start: float) -> float:
        count = min(len(waiting), process.max_batch)
        end = start + count * process.image_s
        answered.extend(end - waiting.popleft() for _ in range(count))
        return end

    for moment in arrivals:
        while waiting and free <= moment:
            free = run(free)
        before = max(0.0, free - moment) + len(waiting) * process.image_s
        if before > patience:
            continue
        waiting.append(moment)
        if free <= moment:
            free = run(moment)
    while waiting:
        free = run(free)
    return answered


def by_call(
    process: Process, processes: int, share: float, *, seconds: float, generator: np.random.Generator
) -> Outcome:
    """A fleet whose calls are spread one by one, so that each process gets its part of random arrivals.

    Args:
        share: of the fleet's capacity that comes in, such as 0.7.
    """
    return _fleet(process, np.full(processes, share * process.capacity), seconds, generator)


def by_connection(
    process: Process,
    processes: int,
    share: float,
    clients: Float64s,
    *,
    seconds: float,
    generator: np.random.Generator,
) -> Outcome:
    """A fleet whose clients have one connection each, to a process by lot, and stay there.

    Args:
        share: as in `by_call`.
        clients: (N,) parts of the load, by client; their sum is 1.
    """
    lots = generator.integers(0, processes, len(clients))
    parts = np.bincount(lots, clients, minlength=processes)
    rates = np.asarray(parts * share * processes * process.capacity, np.float64)
    return _fleet(process, rates, seconds, generator)


def _fleet(process: Process, rates: Float64s, seconds: float, generator: np.random.Generator) -> Outcome:
    latencies: list[float] = []
    calls = 0
    for rate in rates.tolist():
        count = int(generator.poisson(rate * seconds))
        latencies += served(process, np.sort(generator.uniform(0, seconds, count)).tolist())
        calls += count
    p50, p99 = np.percentile(latencies, [50, 99]).tolist() if latencies else (np.inf, np.inf)
    return Outcome(
        p50_s=p50,
        p99_s=p99,
        refused=1 - len(latencies) / calls if calls else 0.0,
        hottest=float(rates.max() / rates.mean()),
    )


def zipf(clients: int, skew: float) -> Float64s:
    """(clients,) parts of a load, falling: the n-th largest client has 1 / n^skew of the largest's."""
    parts = 1 / np.arange(1, clients + 1) ** skew
    return np.asarray(parts / parts.sum())


def highest_share(process: Process, objective_s: float, *, processes: int, seconds: float, seed: int) -> float:
    """The largest share of its capacity that a fleet may be given so that p99 keeps the objective and none is refused.

    By bisection to a hundredth, with the same random numbers each time; 0 where an idle process misses it already.
    """
    low, high = 0, 100
    while high - low > 1:
        middle = (low + high) // 2
        found = by_call(process, processes, middle / 100, seconds=seconds, generator=np.random.default_rng(seed))
        if found.p99_s <= objective_s and not found.refused:
            low = middle
        else:
            high = middle
    return low / 100
