"""`make bench`: what the service costs on top of its graph, all figures from one run on one machine.

The server and the client are processes of their own, each on one core, and the graph runs on one thread. The ratio to
the bare onnxruntime session therefore contains everything: gRPC, parsing, the queue, calibration, verdict and answer.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import grpc
import numpy as np

from protos import detection_pb2 as pb
from service.detection.bundle import SHIPPED, find_bundle, load_bundle
from service.detection.graph import Graph
from service.detection.types import Bytes8
from service.errors import AdvsentryError, BundleError
from service.rpc.convert import SERVICE
from service.rpc.read_answers import image_message

DEFAULTS = (SHIPPED / "digits", Path("build/demo/bundle"))
BATCHES = (1, 8, 32, 64, 128)
BATCH_ITEMS = 64
Figures = dict[str, float]
UnaryMethod: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
StreamMethod: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"


def main() -> int:
    """Runs the benchmark; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench", description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", help="a directory or a shipped name; digits or the demo's when left out")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure (3)")
    parser.add_argument("--max-batch", type=int, default=64, help="the server's (64)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--role", choices=["bare"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        bundle = find_bundle(options.bundle) if options.bundle else _default_bundle()
        if options.role == "bare":
            print(json.dumps(_bare(bundle, options.seconds)))
            return 0
        figures = _measure(bundle, options.seconds, options.max_batch)
    except AdvsentryError as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures) if options.json else _report(bundle, figures))
    return 0


def _default_bundle() -> Path:
    for path in DEFAULTS:
        if (path / "manifest.json").exists():
            return path
    raise BundleError("there is no bundle to measure: run `make demo` first, or name one with --bundle")


def _measure(bundle: Path, seconds: float, max_batch: int) -> Figures:
    cores = sorted(os.sched_getaffinity(0))
    server_core, client_core = cores[0], cores[-1]
    images = _images(bundle, 256)
    figures = {"cores": float(len({server_core, client_core}))}
    figures |= _bare_elsewhere(bundle, seconds, server_core)
    os.sched_setaffinity(0, {client_core})
    with _server(bundle, server_core, max_batch) as target:
        figures |= asyncio.run(_through_grpc(target, images, seconds))
    again = _bare_elsewhere(bundle, seconds, server_core)  # other work on the machine may have slowed the first
    if again["bare_images_per_s"] > figures["bare_images_per_s"]:
        figures |= again
    bare = figures["bare_images_per_s"]
    for name in ("stream", "batch", "detect_32", "detect_1"):
        figures[f"{name}_ratio_to_bare"] = figures[f"{name}_images_per_s"] / bare
    return figures


def _images(bundle: Path, count: int) -> Bytes8:
    shape = load_bundle(bundle).manifest.input
    size = (count, shape.height, shape.width, shape.channels)
    return np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)


def _bare(bundle: Path, seconds: float) -> Figures:
    """Images a second of the session alone, on this process's core, at each batch size."""
    loaded = load_bundle(bundle)
    graph, images = Graph(loaded.graph, loaded.graph_shape, threads=1), _images(bundle, max(BATCHES))
    rates = {}
    for batch in BATCHES:
        runs = 0
        graph.run(images[:batch])
        start = time.perf_counter()
        while (took := time.perf_counter() - start) < seconds / len(BATCHES):
            graph.run(images[:batch])
            runs += 1
        rates[batch] = runs * batch / took
    best = max(rates, key=lambda batch: rates[batch])
    return {"bare_images_per_s": rates[best], "bare_batch": best, "bare_images_per_s_one_by_one": rates[1]}


def _bare_elsewhere(bundle: Path, seconds: float, core: int) -> Figures:
    """In a process of its own, so that its threads are born on the core that the server gets."""
    arguments = [sys.executable, "-m", "deploy.bench", "--role", "bare", "--bundle", str(bundle)]
    done = subprocess.run(
        [*arguments, "--seconds", str(seconds)], stdout=subprocess.PIPE, check=True, preexec_fn=_pin(core)
    )
    figures: Figures = json.loads(done.stdout)
    return figures


def _pin(core: int) -> Callable[[], None]:
    return lambda: os.sched_setaffinity(0, {core})


@contextlib.contextmanager
def _server(bundle: Path, core: int, max_batch: int) -> Iterator[str]:
    flags = {"bundle": bundle, "port": 0, "metrics-port": 0, "threads": 1, "max-batch": max_batch, "lame-duck-s": 0}
    arguments = [sys.executable, "-m", "service", "serve", "--log-level", "error"]
    for name, value in flags.items():
        arguments += [f"--{name}", str(value)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, preexec_fn=_pin(core)) as process:
        try:
            assert process.stdout is not None
            found = re.match(r"serving grpc=(\S+)", process.stdout.readline())
            if found is None:
                raise BundleError("the server did not start; its own message stands above")
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)


async def _through_grpc(target: str, images: Bytes8, seconds: float) -> Figures:
    """Raw tensors, serialised beforehand, so that the client costs as little as it can."""
    messages = [image_message(image) for image in images]
    single = [pb.DetectRequest(image=message).SerializeToString() for message in messages]
    batch = pb.BatchDetectRequest(images=messages[:BATCH_ITEMS]).SerializeToString()
    items = [pb.StreamDetectRequest(item_id=str(i), image=m).SerializeToString() for i, m in enumerate(messages)]
    async with grpc.aio.insecure_channel(target) as channel:
        detect: UnaryMethod = channel.unary_unary(f"/{SERVICE}/Detect")
        batch_detect: UnaryMethod = channel.unary_unary(f"/{SERVICE}/BatchDetect")
        stream_detect: StreamMethod = channel.stream_stream(f"/{SERVICE}/StreamDetect")

        async def one(number: int) -> int:
            await detect(single[number % len(single)])
            return 1

        async def many(_: int) -> int:
            await batch_detect(batch)
            return BATCH_ITEMS

        await _repeat(one, 1, 0.3)  # the connection, and the server's first calls
        return {
            **_named("detect_1", await _repeat(one, 1, seconds)),
            **_named("detect_32", await _repeat(one, 32, seconds)),
            **_named("batch", await _repeat(many, 2, seconds)),
            "stream_images_per_s": await _stream(stream_detect, items, seconds),
        }


async def _repeat(call: Callable[[int], Awaitable[int]], concurrency: int, seconds: float) -> tuple[float, list[float]]:
    """Images a second and the times of the calls, with so many calls in flight."""
    times: list[float] = []
    images = 0
    start = time.perf_counter()

    async def caller(number: int) -> None:
        nonlocal images
        while (begun := time.perf_counter()) - start < seconds:
            done = await call(number + len(times))
            images += done  # read after the wait: 32 callers add to it
            times.append(time.perf_counter() - begun)

    await asyncio.gather(*(caller(number) for number in range(concurrency)))
    return images / (time.perf_counter() - start), times


def _named(name: str, measured: tuple[float, list[float]]) -> Figures:
    rate, times = measured
    p50, p99 = np.percentile(times, [50, 99])
    return {f"{name}_images_per_s": rate, f"{name}_p50_ms": 1000 * float(p50), f"{name}_p99_ms": 1000 * float(p99)}


async def _stream(method: StreamMethod, items: list[bytes], seconds: float) -> float:
    """Images a second of one stream that is never empty."""
    call = method()

    async def write() -> None:
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            for item in items:
                await call.write(item)
        await call.done_writing()

    start = time.perf_counter()
    writer = asyncio.create_task(write())
    answers = 0
    async for _ in call:
        answers += 1
    await writer
    return answers / (time.perf_counter() - start)


def _report(bundle: Path, figures: Figures) -> str:
    shape = load_bundle(bundle).manifest.input
    lines = [
        f"bundle {bundle}, {shape.height} x {shape.width} x {shape.channels}; server and client on "
        f"{figures['cores']:.0f} core(s), one graph thread",
        f"bare session, batch {figures['bare_batch']:3.0f}       {figures['bare_images_per_s']:9.0f} images/s",
        f"bare session, batch   1       {figures['bare_images_per_s_one_by_one']:9.0f} images/s",
        f"StreamDetect                  {figures['stream_images_per_s']:9.0f} images/s  "
        f"{figures['stream_ratio_to_bare']:.2f} of bare",
    ]
    batches = f"BatchDetect of {BATCH_ITEMS}, 2 calls"
    for name, text in {"batch": batches, "detect_32": "Detect, 32 calls", "detect_1": "Detect, 1 call"}.items():
        rate, ratio = figures[f"{name}_images_per_s"], figures[f"{name}_ratio_to_bare"]
        lines.append(
            f"{text:<29} {rate:9.0f} images/s  {ratio:.2f} of bare"
            f"  p50 {figures[f'{name}_p50_ms']:.2f} ms  p99 {figures[f'{name}_p99_ms']:.2f} ms"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
