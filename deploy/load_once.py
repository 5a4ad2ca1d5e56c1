"""Images that several clients send to a server once each, and the time until all is done that they gave it to do."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from deploy.load import BATCH_ITEMS, StreamMethod, UnaryMethod, batch_calls, detect_calls, in_loop, stream_items
from deploy.reliability.callers import uncollected
from deploy.reliability.metrics_page import MetricsPage, read_metrics
from deploy.server_process import Server
from service.client.credentials import token_metadata
from service.detection.types import Bytes8
from service.errors import SetupError
from service.rpc.convert import SERVICE
from service.watching.observer import ENOUGH, GATHER_S

__all__ = ["IN_FLIGHT", "WAYS", "Turn", "Way", "turn"]

IN_FLIGHT = 32
"""Detect calls of all clients together."""
MOST_WAIT_S = 60.0
"""For the history to see what was sent."""
POLL_S = (0.02, 0.5)
"""At least and at most, between two looks at the metrics."""

Metadata: TypeAlias = tuple[tuple[str, str], ...] | None
Send = Callable[[grpc.aio.Channel, Metadata, Sequence[bytes], int], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to send images."""

    text: str
    requests: Callable[[Bytes8], Sequence[bytes]]
    """Serialised."""
    send: Send
    """All of one client's; it is told how many clients there are."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What came of images that were sent in one way."""

    images: int
    seconds: float
    """Until they were answered and the history had seen them, less what it waited for more of them."""
    behind_s: float
    """The part of it after the last answer."""
    server_us: float
    """Processor time of the server for an image, until then."""
    client_share: float
    """Of the client's core that the client took until the last answer."""
    observed: int
    unobserved: int
    """That the history had no room for."""
    late: int
    """That were answered before they were observed, though their answers waited."""
    flagged: int

    @property
    def images_per_s(self) -> float:
        """Answered."""
        return self.images / self.seconds


def turn(
    running: Server, way: Way, requests: Sequence[bytes], images: int, tokens: Sequence[str], *, has_history: bool
) -> Turn:
    """Sends each request once.

    Args:
        requests: of the way, dealt to the clients one by one.
        images: in all of them.
        tokens: of the clients.
        has_history: whether the server is to observe them all.

    Raises:
        SetupError: an image was not answered, or the history does not come to its end with them.
    """
    before = read_metrics(running.metrics)
    with uncollected():
        server_s, client_s, start = running.cpu_s(), time.process_time(), time.perf_counter()
        in_loop(_send_all(running.target, way, requests, tokens))
        answered_s, client_s = time.perf_counter() - start, time.process_time() - client_s
    seconds, spent_s = answered_s, running.cpu_s() - server_s
    found = read_metrics(running.metrics).since(before)
    if has_history and _left(found, images):
        if _left(found, images) >= ENOUGH:
            _seen(running, before, images, ENOUGH - 1)
            seconds, spent_s = time.perf_counter() - start, running.cpu_s() - server_s
        time.sleep(GATHER_S)  # the rest waits for more, which does not come; what it takes then is the processor's time
        found = _seen(running, before, images, 0)
        rest_s = running.cpu_s() - server_s - spent_s
        seconds, spent_s = seconds + rest_s, spent_s + rest_s
    if (answered := found.total("advsentry_images_total", outcome="detected")) != images:
        raise SetupError(f"{way.text}: expected {images} images answered, got {answered:.0f}")
    outcomes = found.by("advsentry_history_queries_total", "outcome")
    return Turn(
        images=images,
        seconds=seconds,
        behind_s=seconds - answered_s,
        server_us=1e6 * spent_s / images,
        client_share=client_s / answered_s,
        observed=int(outcomes.get("observed", 0)),
        unobserved=int(outcomes.get("unobserved", 0)),
        late=int(found.total("advsentry_history_late_total")),
        flagged=int(found.total("advsentry_history_flags_total")),
    )


def _left(found: MetricsPage, images: int) -> int:
    """Of so many images, those that the history has neither seen nor let go."""
    return images - int(found.total("advsentry_history_queries_total"))


def _seen(running: Server, before: MetricsPage, images: int, most: int) -> MetricsPage:
    """What was counted since, as soon as at most so many images are left for the history.

    It is asked seldom meanwhile, since it takes the server's time.
    """
    began = time.monotonic()
    while True:
        found = read_metrics(running.metrics).since(before)
        left = _left(found, images)
        if left <= most:
            return found
        if time.monotonic() - began > MOST_WAIT_S:
            raise SetupError(
                f"the history leaves {left} of {images} images after {MOST_WAIT_S:g} s; see the server's log"
            )
        observed = found.total("advsentry_history_queries_total", outcome="observed")
        each_s = found.total("advsentry_history_seconds_total") / max(1.0, observed)
        time.sleep(min(POLL_S[1], max(POLL_S[0], 0.5 * (left - most) * each_s)))


async def _send_all(target: str, way: Way, requests: Sequence[bytes], tokens: Sequence[str]) -> None:
    count = len(tokens)

    async def client(number: int) -> None:
        metadata = token_metadata(tokens[number], target, None)
        # a connection of its own: channels of one process share them where their options are the same
        async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            await channel.channel_ready()
            await way.send(channel, metadata, requests[number::count], count)

    await asyncio.gather(*map(client, range(count)))


def _unary(method: str, in_flight: int) -> Send:
    """So many calls of all clients together, one of each at least."""

    async def send(channel: grpc.aio.Channel, metadata: Metadata, requests: Sequence[bytes], clients: int) -> None:
        call: UnaryMethod = channel.unary_unary(f"/{SERVICE}/{method}")
        rest = iter(requests)

        async def caller() -> None:
            for request in rest:
                await call(request, metadata=metadata)

        await asyncio.gather(*(caller() for _ in range(max(1, in_flight // clients))))

    return send


async def _stream(channel: grpc.aio.Channel, metadata: Metadata, requests: Sequence[bytes], clients: int) -> None:
    """One for each client."""
    method: StreamMethod = channel.stream_stream(f"/{SERVICE}/StreamDetect")
    call = method(metadata=metadata)

    async def write() -> None:
        for request in requests:
            await call.write(request)
        await call.done_writing()

    writer = asyncio.create_task(write())
    async for _ in call:
        pass
    await writer


def _batches(images: Bytes8) -> list[bytes]:
    return [
        request
        for start in range(0, len(images), BATCH_ITEMS)
        for request in batch_calls(images[start : start + BATCH_ITEMS]).requests
    ]


WAYS: Mapping[str, Way] = {
    "detect": Way(
        text=f"Detect, {IN_FLIGHT} calls",
        requests=lambda images: detect_calls(images).requests,
        send=_unary("Detect", IN_FLIGHT),
    ),
    "batch": Way(
        text=f"BatchDetect of {BATCH_ITEMS}, a call each", requests=_batches, send=_unary("BatchDetect", in_flight=1)
    ),
    "stream": Way(text="StreamDetect, a stream each", requests=stream_items, send=_stream),
}
"""By the name that figures have."""
