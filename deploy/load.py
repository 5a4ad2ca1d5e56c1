"""A server process under load: images a second, and what they cost on either side."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc
import numpy as np

from protos import detection_pb2 as pb
from service.detection.types import Bytes8
from service.errors import BundleError
from service.rpc.convert import SERVICE
from service.rpc.read_answers import image_message

__all__ = ["BATCH_ITEMS", "STREAMS", "Load", "Server", "loads", "pinned", "server"]

BATCH_ITEMS = 64
STREAMS = 4
UnaryMethod: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
StreamMethod: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"


@dataclass(frozen=True, kw_only=True)
class Load:
    """What was measured while one way of calling kept the server busy."""

    images_per_s: float
    server_us: float
    """Processor time of the server process for an image: graph, gRPC and all."""
    client_us: float
    p50_ms: float | None = None
    """Of a call; a stream is one call."""
    p99_ms: float | None = None


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    target: str
    pid: int

    def cpu_s(self) -> float:
        """Processor time of all its threads until now."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime


def pinned(core: int) -> Callable[[], None]:
    """For `preexec_fn`: every thread of the new process is born on that core."""
    return lambda: os.sched_setaffinity(0, {core})


@contextlib.contextmanager
def server(bundle: Path, core: int, max_batch: int) -> Iterator[Server]:
    """Serves a bundle on one core with one graph thread.

    Raises:
        BundleError: it did not start.
    """
    flags = {"bundle": bundle, "port": 0, "metrics-port": 0, "threads": 1, "max-batch": max_batch, "lame-duck-s": 0}
    arguments = [sys.executable, "-m", "service", "serve", "--log-level", "error"]
    for name, value in flags.items():
        arguments += [f"--{name}", str(value)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, preexec_fn=pinned(core)) as process:
        try:
            assert process.stdout is not None
            found = re.match(r"serving grpc=(\S+)", process.stdout.readline())
            if found is None:
                raise BundleError("the server did not start; its own message stands above")
            yield Server(found[1], process.pid)
        finally:
            process.send_signal(signal.SIGTERM)


def loads(running: Server, images: Bytes8, seconds: float) -> dict[str, Load]:
    """Loads by name, one after the other; in an event loop as the server's."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_loads(running, images, seconds))


async def _loads(running: Server, images: Bytes8, seconds: float) -> dict[str, Load]:
    """Sends raw tensors, serialised beforehand, and does not parse answers, so that the client costs the least."""
    messages = [image_message(image) for image in images]
    single = [pb.DetectRequest(image=message).SerializeToString() for message in messages]
    batch = pb.BatchDetectRequest(images=messages[:BATCH_ITEMS]).SerializeToString()
    items = [pb.StreamDetectRequest(item_id=str(i), image=m).SerializeToString() for i, m in enumerate(messages)]
    async with grpc.aio.insecure_channel(running.target) as channel:
        detect: UnaryMethod = channel.unary_unary(f"/{SERVICE}/Detect")
        batch_detect: UnaryMethod = channel.unary_unary(f"/{SERVICE}/BatchDetect")
        stream_detect: StreamMethod = channel.stream_stream(f"/{SERVICE}/StreamDetect")

        async def one(number: int) -> int:
            await detect(single[number % len(single)])
            return 1

        async def many(_: int) -> int:
            await batch_detect(batch)
            return BATCH_ITEMS

        await _calls(running, one, 1, 0.3)  # the connection, and the server's first calls
        return {
            "stream": await _streams(running, stream_detect, items, 1, seconds),
            f"stream_{STREAMS}": await _streams(running, stream_detect, items, STREAMS, seconds),
            "batch": await _calls(running, many, 2, seconds),
            "detect_32": await _calls(running, one, 32, seconds),
            "detect_1": await _calls(running, one, 1, seconds),
        }


async def _calls(running: Server, call: Callable[[int], Awaitable[int]], concurrency: int, seconds: float) -> Load:
    """So many calls in flight."""
    times: list[float] = []
    images = 0
    clock = _Clock(running)

    async def caller(number: int) -> None:
        nonlocal images
        while (begun := time.perf_counter()) - clock.start < seconds:
            done = await call(number + len(times))
            images += done  # read after the wait: 32 callers add to it
            times.append(1000 * (time.perf_counter() - begun))

    await asyncio.gather(*(caller(number) for number in range(concurrency)))
    return clock.load(images, times)


async def _streams(running: Server, method: StreamMethod, items: list[bytes], count: int, seconds: float) -> Load:
    """So many streams that are never empty."""
    clock = _Clock(running)

    async def stream() -> int:
        call = method()

        async def write() -> None:
            while time.perf_counter() - clock.start < seconds:
                for item in items:
                    await call.write(item)
            await call.done_writing()

        writer = asyncio.create_task(write())
        answers = 0
        async for _ in call:
            answers += 1
        await writer
        return answers

    return clock.load(sum(await asyncio.gather(*(stream() for _ in range(count)))), [])


class _Clock:
    """Wall time, and processor time on either side, from its making on."""

    def __init__(self, running: Server) -> None:
        self._running = running
        self._server_s, self._client_s = running.cpu_s(), time.process_time()
        self.start = time.perf_counter()

    def load(self, images: int, times_ms: list[float]) -> Load:
        wall_s = time.perf_counter() - self.start
        p50, p99 = np.percentile(times_ms, [50, 99]).tolist() if times_ms else (None, None)
        return Load(
            images_per_s=images / wall_s,
            server_us=1e6 * (self._running.cpu_s() - self._server_s) / images,
            client_us=1e6 * (time.process_time() - self._client_s) / images,
            p50_ms=p50,
            p99_ms=p99,
        )
