"""R-9 and R-10: memory, descriptors and threads after very many calls, and after very long."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import TypeAlias

import grpc
import numpy as np

from deploy.reliability.callers import capacity, channel, paced, percentile_ms, run_loop
from deploy.reliability.check import Check, Figures
from deploy.reliability.process import Serving
from deploy.reliability.rig import BARE, Rig, images_of, messages_of
from protos import detection_pb2 as pb
from service.rpc.convert import SERVICE
from service.rpc.read_answers import image_message

__all__ = ["CHECKS"]

UnaryMethod: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
StreamMethod: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"
SAMPLES = 40
CALLERS = 32
ALLOWED = frozenset({"OK", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
STREAM_ITEMS = 4
"""gRPC without the service, under the same calls: what it keeps is none of ours."""


class _Mix:
    """Calls of which a sixth are streams, a fifth are cancelled, and a fifth have no time."""

    def __init__(self, images: Sequence[pb.Image], made: grpc.aio.Channel, seed: int) -> None:
        self._random = random.Random(seed)
        self._detect: UnaryMethod = made.unary_unary(f"/{SERVICE}/Detect")
        self._batch: UnaryMethod = made.unary_unary(f"/{SERVICE}/BatchDetect")
        self._stream: StreamMethod = made.stream_stream(f"/{SERVICE}/StreamDetect")
        self._single = [pb.DetectRequest(image=image).SerializeToString() for image in images]
        self._items = [pb.StreamDetectRequest(image=image).SerializeToString() for image in images]
        self._batches = [pb.BatchDetectRequest(images=images[:size]).SerializeToString() for size in range(1, 17)]
        self.codes: Counter[str] = Counter()

    async def one(self) -> None:
        """One call, whatever becomes of it."""
        fate = self._random.random()
        timeout = 0.0005 if 0.2 <= fate < 0.4 else 30.0
        call = self._call(timeout)
        if fate < 0.2:
            asyncio.get_running_loop().call_later(self._random.random() * 0.02, call.cancel)
        try:
            if isinstance(call, grpc.aio.StreamStreamCall):
                async for _ in call:
                    pass
            else:
                await call
            self.codes["OK"] += 1
        except grpc.aio.AioRpcError as error:
            # a message written to a stream whose time is over fails in the client itself
            is_ours = str(error.details()).startswith("Internal error from Core")
            self.codes["CANCELLED" if is_ours else error.code().name] += 1
        except asyncio.CancelledError:
            self.codes["CANCELLED"] += 1

    def _call(
        self, timeout: float
    ) -> "grpc.aio.UnaryUnaryCall[bytes, bytes] | grpc.aio.StreamStreamCall[bytes, bytes]":
        kind = self._random.random()
        if kind < 1 / 6:
            return self._stream(self._some_items(), timeout=timeout)
        if kind < 1 / 4:
            return self._batch(self._random.choice(self._batches), timeout=timeout)
        return self._detect(self._random.choice(self._single), timeout=timeout)

    async def _some_items(self) -> AsyncIterator[bytes]:
        for _ in range(STREAM_ITEMS):
            yield self._random.choice(self._items)

    async def many(self, count: int) -> None:
        """So many calls, CALLERS at once."""
        left = iter(range(count))

        async def caller() -> None:
            for _ in left:
                await self.one()

        await asyncio.gather(*(caller() for _ in range(CALLERS)))


async def _sampled(running: Serving, mix: _Mix, calls: int) -> list[float]:
    """Resident MB after each of SAMPLES parts of the calls."""
    samples = []
    for _ in range(SAMPLES):
        await mix.many(calls // SAMPLES)
        await asyncio.sleep(0.05)  # what was cancelled last ends first
        samples.append(running.rss_mb())
    return samples


async def _leaks(running: Serving, images: Sequence[pb.Image], calls: int) -> tuple[list[float], Counter[str]]:
    async with channel(running.target) as made:
        mix = _Mix(images, made, seed=0)
        await mix.many(calls // 4)  # caches fill, the allocator finds its size
        return await _sampled(running, mix, calls), mix.codes


def second_half_slope(samples: Sequence[float]) -> float:
    """Growth over the second half, a sample, by least squares."""
    half = np.asarray(samples[len(samples) // 2 :])
    return float(np.polyfit(np.arange(len(half)), half, 1)[0])


def _slope(samples: Sequence[float], calls: int) -> tuple[float, float]:
    """MB that 100,000 calls leave behind, and the standard error of that."""
    half = np.asarray(samples[len(samples) // 2 :])
    covariance = np.polyfit(np.arange(len(half)), half, 1, cov=True)[1]
    scale = 100_000 / (calls / SAMPLES)
    return scale * second_half_slope(samples), scale * float(np.sqrt(covariance[0, 0]))


def growth(rig: Rig) -> Figures:
    """R-9."""
    calls = rig.scaled(test=2_000, quick=100_000, full=1_200_000)
    control_calls = rig.scaled(test=2_000, quick=40_000, full=1_200_000)
    images = [image_message(image) for image in images_of(rig.bundle, 64)]
    with rig.server() as running:
        samples, codes = run_loop(_leaks(running, images, calls))
        load = running.metrics()
        logged = running.errors_logged()
    with rig.server(command=BARE) as running:
        control, _ = run_loop(_leaks(running, images, control_calls))
    slope, error = _slope(samples, calls)
    control_slope, control_error = _slope(control, control_calls)
    return {
        "calls": calls,
        "control_calls": control_calls,
        "cancelled": codes["CANCELLED"],
        "past_deadline": codes["DEADLINE_EXCEEDED"],
        "otherwise_ended": sum(count for code, count in codes.items() if code not in ALLOWED),
        "rss_mb": samples[-1],
        "mb_per_100k_calls": slope,
        "standard_error_mb": error,
        "control_mb_per_100k_calls": control_slope,
        "control_standard_error_mb": control_error,
        "max_minus_mean_mb": max(samples) - float(np.mean(samples)),
        "left_in_queue": load.total("advsentry_queue_items") + load.total("advsentry_inflight"),
        "errors_logged": logged,
    }


def soak(rig: Rig) -> Figures:
    """R-10."""
    messages = messages_of(images_of(rig.bundle, 64))  # of the slow graph too few would come for a slope
    part_s = rig.scaled(test=1, quick=3, full=8 * 3600 // SAMPLES)
    parts = rig.scaled(test=4, quick=9, full=SAMPLES)
    samples, descriptors, threads, p99s = [], [], [], []
    failed = 0
    with rig.server() as running:
        rate = 0.5 * capacity(running.target, messages, seconds=rig.scaled(test=1, quick=4, full=10))
        run_loop(paced(running.target, messages, rate=rate, seconds=part_s, deadline_s=10, clients=16))
        for part in range(parts):
            outcomes = run_loop(
                paced(running.target, messages, rate=rate, seconds=part_s, deadline_s=10, clients=16, seed=part)
            )
            failed += sum(outcome.code != "OK" for outcome in outcomes)
            p99s.append(percentile_ms(outcomes, 99))
            time.sleep(0.2)  # the connections of this part are closed
            samples.append(running.rss_mb())
            descriptors.append(running.descriptors())
            threads.append(running.threads())
    thirds = max(1, parts // 3)
    return {
        "seconds": part_s * parts,
        "failed": failed,
        "mb_per_100k_calls": second_half_slope(samples) / (rate * part_s) * 100_000,
        "max_minus_mean_mb": max(samples) - float(np.mean(samples)),
        "descriptors_range": max(descriptors) - min(descriptors),
        "threads_range": max(threads) - min(threads),
        "p99_ms": float(np.median(p99s)),
        "p99_drift": float(np.median(p99s[-thirds:]) / np.median(p99s[:thirds]) - 1),
    }


_FLAT = {"mb_per_100k_calls": "<= 1", "max_minus_mean_mb": "<= 20"}

CHECKS = (
    Check(
        number="R-9",
        text="Detect, BatchDetect of 1 to 16 and StreamDetect in one mix, a fifth cancelled, a fifth past its "
        "deadline; growth of resident memory over the second half, and that of gRPC without the service under the same "
        "calls (control)",
        asked={**_FLAT, "otherwise_ended": "= 0", "left_in_queue": "= 0", "errors_logged": "= 0"},
        run=growth,
    ),
    Check(
        number="R-10",
        text="Detect at half the capacity for a long time",
        asked={
            **_FLAT,
            "failed": "= 0",
            "descriptors_range": "<= 5",
            "threads_range": "<= 5",
            "p99_drift": "<= 0.1",
        },
        timed=frozenset({"mb_per_100k_calls", "p99_drift"}),
        run=soak,
    ),
)
