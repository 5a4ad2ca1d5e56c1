"""A server process under load: images a second, and what they cost on either side."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import grpc
import numpy as np

from deploy.server_process import Server
from protos import detection_pb2 as pb
from service.detection.types import Bytes8
from service.rpc.convert import SERVICE
from service.rpc.read_answers import image_message

__all__ = [
    "BATCH_ITEMS",
    "STREAMS",
    "Clock",
    "Load",
    "Unary",
    "UnaryMethod",
    "batch_calls",
    "closed_loop",
    "detect_calls",
    "in_loop",
    "loads",
    "stream_items",
    "stream_load",
    "unary_load",
]

BATCH_ITEMS = 64
STREAMS = 4
UnaryMethod: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
StreamMethod: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What was measured while one way of calling kept the server busy."""

    images_per_s: float
    server_us: float
    """Processor time of the server process for an image: graph, gRPC and all."""
    loop_us: float
    """The part of it that the server's first thread takes: of ours, the event loop's."""
    client_us: float
    p50_ms: float | None = None
    """Of a call; a stream is one call."""
    p99_ms: float | None = None

    @property
    def client_share(self) -> float:
        """Of the client's core that the client took; near 1 the figures are the client's, not the server's."""
        return self.client_us * self.images_per_s / 1e6


@dataclass(frozen=True, kw_only=True)
class Unary:
    """A unary method, and requests that were serialised before."""

    method: str
    requests: Sequence[bytes]
    """Sent in turn."""
    images: int = 1
    """In each."""


def detect_calls(images: Bytes8) -> Unary:
    """Detect of one raw tensor after the other.

    Args:
        images: (N, H, W, C).
    """
    requests = [pb.DetectRequest(image=image_message(image)).SerializeToString() for image in images]
    return Unary(method=f"/{SERVICE}/Detect", requests=requests)


def batch_calls(images: Bytes8) -> Unary:
    """BatchDetect of the first `BATCH_ITEMS`."""
    batch = pb.BatchDetectRequest(images=[image_message(image) for image in images[:BATCH_ITEMS]])
    return Unary(method=f"/{SERVICE}/BatchDetect", requests=[batch.SerializeToString()], images=BATCH_ITEMS)


def stream_items(images: Bytes8) -> list[bytes]:
    """Messages of StreamDetect, one an image."""
    messages = [image_message(image) for image in images]
    return [pb.StreamDetectRequest(item_id=str(i), image=m).SerializeToString() for i, m in enumerate(messages)]


def in_loop(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs it in an event loop as the server's."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def loads(running: Server, images: Bytes8, seconds: float) -> dict[str, Load]:
    """Loads by name, one after the other.

    They send raw tensors, serialised beforehand, and do not parse answers, so that the client costs the least.
    """
    one, many = detect_calls(images), batch_calls(images)
    unary_load(running, one, 1, 0.3)  # the server's first calls
    return {
        "stream": stream_load(running, images, 1, seconds),
        f"stream_{STREAMS}": stream_load(running, images, STREAMS, seconds),
        "batch": unary_load(running, many, 2, seconds),
        "detect_32": unary_load(running, one, 32, seconds),
        "detect_1": unary_load(running, one, 1, seconds),
    }


def unary_load(running: Server, calls: Unary, in_flight: int, seconds: float) -> Load:
    """So many calls in flight."""

    async def load() -> Load:
        async with grpc.aio.insecure_channel(running.target) as channel:
            method: UnaryMethod = channel.unary_unary(calls.method)

            async def call(number: int) -> int:
                await method(calls.requests[number % len(calls.requests)])
                return calls.images

            await call(0)  # the connection
            return await closed_loop(running, call, in_flight, seconds)

    return in_loop(load())


async def closed_loop(running: Server, call: Callable[[int], Awaitable[int]], in_flight: int, seconds: float) -> Load:
    """So many callers, each of whom calls again when he has his answer.

    Args:
        call: given a number, gives how many images it sent.
    """
    times: list[float] = []
    images = 0
    clock = Clock(running)

    async def caller(number: int) -> None:
        nonlocal images
        is_over = False
        while not is_over:  # asked afterwards: there is nothing to tell of a load without an answer
            begun = time.perf_counter()
            done = await call(number + len(times))
            images += done  # read after the wait: others add to it
            times.append(1000 * (time.perf_counter() - begun))
            is_over = time.perf_counter() - clock.start >= seconds

    await asyncio.gather(*(caller(number) for number in range(in_flight)))
    return clock.load(images, times)


def stream_load(running: Server, images: Bytes8, count: int, seconds: float) -> Load:
    """So many streams that are never empty."""
    items = stream_items(images)

    async def load() -> Load:
        async with grpc.aio.insecure_channel(running.target) as channel:
            await channel.channel_ready()
            method: StreamMethod = channel.stream_stream(f"/{SERVICE}/StreamDetect")
            clock = Clock(running)
            answers = await asyncio.gather(*(_stream(method, items, clock, seconds) for _ in range(count)))
            return clock.load(sum(answers), [])

    return in_loop(load())


async def _stream(method: StreamMethod, items: Sequence[bytes], clock: "Clock", seconds: float) -> int:
    call = method()

    async def write() -> None:
        is_over = False
        while not is_over:  # asked afterwards, as above
            for item in items:
                await call.write(item)
            is_over = time.perf_counter() - clock.start >= seconds
        await call.done_writing()

    writer = asyncio.create_task(write())
    answers = 0
    async for _ in call:
        answers += 1
    await writer
    return answers


class Clock:
    """Wall time, and processor time on either side, from its making on."""

    def __init__(self, running: Server) -> None:
        self._running = running
        self._server_s, self._loop_s, self._client_s = running.cpu_s(), running.loop_s(), time.process_time()
        self.start = time.perf_counter()

    def load(self, images: int, times_ms: Sequence[float]) -> Load:
        """What was measured until now.

        Args:
            images: that were answered.
            times_ms: of each call; empty where there is none to speak of.
        """
        wall_s = time.perf_counter() - self.start
        p50, p99 = np.percentile(times_ms, [50, 99]).tolist() if times_ms else (None, None)
        return Load(
            images_per_s=images / wall_s,
            server_us=1e6 * (self._running.cpu_s() - self._server_s) / images,
            loop_us=1e6 * (self._running.loop_s() - self._loop_s) / images,
            client_us=1e6 * (time.process_time() - self._client_s) / images,
            p50_ms=p50,
            p99_ms=p99,
        )
