"""What our handlers cost without gRPC and without the graph: processor time of an image, in one process.

gRPC's part is the difference to what `deploy.bench_serving` measures of the event loop.
"""

import argparse
import asyncio
import contextlib
import cProfile
import pstats
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
from prometheus_client import CollectorRegistry

from deploy.bench import random_images
from deploy.load import BATCH_ITEMS, batch_calls, detect_calls, in_loop, stream_items
from deploy.result_file import write_result
from service.batching import Batcher, QueueLimits
from service.detection.bundle import Bundle, find_bundle
from service.detection.engine import Engine
from service.detection.types import Bytes8, Measurements
from service.errors import AdvsentryError
from service.metrics import Metrics
from service.rpc.call import ANONYMOUS, begin_call
from service.rpc.detector import DetectorServicer
from service.rpc.pipeline import Pipeline, Policy, Served

MAX_BATCH = 64
CALLERS = 32
REPEATS = 5
IMAGES = 2048
"""In each repeat."""


class Context:
    """Of a call without a deadline, whose answers nobody gets."""

    def time_remaining(self) -> None:
        """None."""

    def set_trailing_metadata(self, _: object) -> None:
        """Takes note of nothing."""

    async def write(self, _: bytes) -> None:
        """Sends nothing."""


def main() -> int:
    """Runs the benchmark; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench_handlers", description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", default="gtsrb", help="a directory or a shipped name (gtsrb)")
    parser.add_argument("--profile", action="store_true", help="where the time goes, function by function")
    parser.add_argument("--images", type=int, default=IMAGES, help=f"in each of {REPEATS} repeats ({IMAGES})")
    parser.add_argument("--result", type=Path, help="a file for docs/results")
    options = parser.parse_args()
    started = time.monotonic()
    try:
        engine = Engine.load(find_bundle(options.bundle), threads=1)
    except AdvsentryError as error:
        print(f"bench_handlers: error: {error}", file=sys.stderr)
        return 1
    profile = cProfile.Profile()
    with profile if options.profile else contextlib.nullcontext():
        metrics = in_loop(_measure(engine, options.images))
    for name, value in metrics.items():
        print(f"{name:<20} {value:8.1f}")
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    if options.result:
        manifest = engine.bundle.manifest
        write_result(
            options.result,
            name="handlers",
            module="deploy.bench_handlers",
            recipe={"images": options.images, "repeats": REPEATS, "callers": CALLERS, "max_batch": MAX_BATCH},
            seed=0,
            seconds=time.monotonic() - started,
            data={manifest.name: manifest.files["model.onnx"].sha256[:12]},
            metrics=metrics,
        )
    return 0


async def _measure(engine: Engine, count: int) -> dict[str, float]:
    images = random_images(engine.bundle, 256)
    with ThreadPoolExecutor(1) as graph, ThreadPoolExecutor(1) as decoders:
        metrics = Metrics(CollectorRegistry())
        batcher = Batcher(_remembered(engine, images), graph, limits=QueueLimits(max_batch=MAX_BATCH), metrics=metrics)
        batcher.start()
        pipeline = Pipeline(engine, batcher, decoders, policy=Policy(), metrics=metrics)
        servicer = DetectorServicer(Served(pipeline), max_message_bytes=2**24, max_queue_items=1024)
        found = await _each(servicer, engine.bundle, images, count)
        await batcher.close()
    return found


def _remembered(engine: Engine, images: Bytes8) -> Callable[[Bytes8], Measurements]:
    """The calibration of outputs that the graph gave before: of as many images, if not of those."""
    outputs = {size: engine.graph.run(images[:size]) for size in range(1, MAX_BATCH + 1)}
    return lambda batch: engine.calibrate(outputs[len(batch)])


async def _each(servicer: DetectorServicer, bundle: Bundle, images: Bytes8, count: int) -> dict[str, float]:
    one, batch, items = detect_calls(images).requests, batch_calls(images).requests[0], stream_items(images)
    context = cast("grpc.aio.ServicerContext[bytes, bytes]", Context())

    async def detects(calls: int) -> None:
        for number in range(calls):
            begin_call(ANONYMOUS)
            await servicer.detect(one[number % len(one)], context)

    async def batches(calls: int) -> None:
        for _ in range(calls):
            begin_call(ANONYMOUS)
            await servicer.batch_detect(batch, context)

    async def stream() -> None:
        async def requests() -> AsyncIterator[bytes]:
            for number in range(count):
                yield items[number % len(items)]

        begin_call(ANONYMOUS)
        await servicer.stream_detect(requests(), context)

    ways: dict[str, Callable[[], list[Coroutine[Any, Any, None]]]] = {
        f"detect_{CALLERS}_us": lambda: [detects(count // CALLERS) for _ in range(CALLERS)],
        "detect_1_us": lambda: [detects(count)],
        "batch_us": lambda: [batches(count // BATCH_ITEMS // 2) for _ in range(2)],
        "stream_us": lambda: [stream()],
    }
    return {f"{bundle.manifest.name}_{name}": await _least_us(work, count) for name, work in ways.items()}


async def _least_us(work: Callable[[], list[Coroutine[Any, Any, None]]], count: int) -> float:
    """Processor time of an image, the least of the repeats: what else the machine does only ever adds to it."""
    least = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        await asyncio.gather(*work())
        least = min(least, time.process_time() - start)
    return 1e6 * least / count


if __name__ == "__main__":
    sys.exit(main())
