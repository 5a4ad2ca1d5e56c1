"""Calls that come whether or not the last ones were answered, as those of many callers do."""

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import grpc
import numpy as np

from deploy.load import Clock, Unary, UnaryMethod, in_loop
from deploy.reliability.callers import uncollected
from deploy.server_process import Server
from service.detection.types import Float64s

__all__ = ["Arrivals", "OpenLoad", "arrivals", "highest_rate", "on_time", "open_load"]

Result = TypeVar("Result")
Arrivals = Literal["constant", "poisson"]
GIVE_UP_S = 5.0
"""Deadline of a call."""


@dataclass(frozen=True, kw_only=True)
class OpenLoad:
    """What callers saw; times count from the moment at which a call was due, so that a late client hides nothing."""

    p50_ms: float
    p99_ms: float
    """Infinite when more than 1 % of the calls failed."""
    failed: int
    late_p99_ms: float
    """How late the client was to send; near `p99_ms` the figures are the client's."""
    server_us: float
    client_share: float
    """Of its core that the client took."""


def arrivals(kind: Arrivals, rate: float, seconds: float, seed: int) -> Float64s:
    """(N,) rising moments in seconds at which a call is due: evenly spaced, or with exponential gaps."""
    if kind == "constant":
        return np.arange(max(1, round(rate * seconds))) / rate
    gaps = np.random.default_rng(seed).exponential(1 / rate, max(1, round(rate * seconds)))
    return np.asarray(np.cumsum(gaps))


def open_load(running: Server, calls: Unary, due: Float64s) -> OpenLoad:
    """Sends one call at each moment.

    Args:
        due: (N,) seconds from the start, rising.
    """
    with uncollected():
        return in_loop(_open_load(running, calls, due))


async def on_time(due: Float64s, start: float, call: Callable[[int], Coroutine[Any, Any, Result]]) -> list[Result]:
    """Begins a call at each moment, whatever became of earlier ones; gives their results, in order.

    Args:
        due: (N,) seconds from the start, rising.
        start: by `time.perf_counter`.
        call: given the number of a moment.
    """
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[Result]] = []

    def begin(number: int) -> None:
        tasks.append(loop.create_task(call(number)))

    def send() -> None:
        # A thread, since the loop's own clock ticks in whole milliseconds.
        for number, moment in enumerate(due.tolist()):
            time.sleep(max(0.0, start + moment - time.perf_counter()))
            loop.call_soon_threadsafe(begin, number)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    while len(tasks) < len(due):
        await asyncio.sleep(0.02)
    results = await asyncio.gather(*tasks)
    sender.join()
    return results


async def _open_load(running: Server, calls: Unary, due: Float64s) -> OpenLoad:
    times_ms, late_ms = [math.inf] * len(due), [0.0] * len(due)
    async with grpc.aio.insecure_channel(running.target) as channel:
        method: UnaryMethod = channel.unary_unary(calls.method)
        await method(calls.requests[0])  # the connection
        clock = Clock(running)

        async def call(number: int) -> None:
            moment = clock.start + due[number]
            late_ms[number] = 1000 * (time.perf_counter() - moment)
            with contextlib.suppress(grpc.aio.AioRpcError):  # it stays infinite
                await method(calls.requests[number % len(calls.requests)], timeout=GIVE_UP_S)
                times_ms[number] = 1000 * (time.perf_counter() - moment)

        await on_time(due, clock.start, call)
        load = clock.load(len(due) * calls.images, ())
    p50, p99 = np.percentile(times_ms, [50, 99], method="lower").tolist()
    return OpenLoad(
        p50_ms=p50,
        p99_ms=p99,
        failed=times_ms.count(math.inf),
        late_p99_ms=float(np.percentile(late_ms, 99)),
        server_us=load.server_us,
        client_share=load.client_share,
    )


def highest_rate(p99_ms: Callable[[float], float], most: float, objective_ms: float, probes: int) -> float:
    """The highest rate at which p99 stays within the objective, by bisection; 0 when every probe was above it.

    A rate that fails is tried once more, since other work on the machine delays, but never hastens.

    Args:
        p99_ms: measures at a rate.
        most: a rate that is surely too high.
        probes: halvings of the range.
    """
    low, high = 0.0, most
    for _ in range(probes):
        rate = (low + high) / 2
        if p99_ms(rate) <= objective_ms or p99_ms(rate) <= objective_ms:
            low = rate
        else:
            high = rate
    return low
