"""Clients that load a server: closed loops for its capacity, open ones for what it does with more or less."""

import asyncio
import contextlib
import gc
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import grpc
import numpy as np

from service.rpc.convert import SERVICE

__all__ = [
    "Outcome",
    "capacity",
    "channel",
    "closed",
    "codes",
    "detect_once",
    "paced",
    "percentile_ms",
    "run_loop",
    "uncollected",
]

T = TypeVar("T")
Metadata: TypeAlias = tuple[tuple[str, str], ...]
UnaryMethod: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
PUSHBACK = "grpc-retry-pushback-ms"
QUEUE_MS = "x-advsentry-queue-ms"


@dataclass(slots=True)  # frozen ones cost a microsecond more, and there are many
class Outcome:
    """How one call ended."""

    code: str
    """Such as "OK"."""
    sent_s: float
    """By `time.monotonic()`."""
    seconds: float
    has_pushback: bool = False
    """Whether a refusal said when to come back."""
    queue_ms: float = math.nan
    """How long the image waited, as the server says of an answer; NaN where nobody asked for it."""


def run_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end, on uvloop where it is installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coroutine)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's collector: it stops a client of many calls for tens of ms, which would count as the server's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def channel(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """A channel with a connection of its own and without retries.

    Args:
        credentials: None for plaintext.
    """
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


async def detect_once(
    method: UnaryMethod,
    message: bytes,
    deadline_s: float,
    metadata: Metadata | None = None,
    *,
    reads_queue_ms: bool = False,
) -> Outcome:
    """One call; never raises what a server may answer.

    Args:
        reads_queue_ms: whether to look how long the image waited, which costs the client a little.
    """
    sent_s = time.monotonic()
    call = method(message, timeout=deadline_s, metadata=metadata)
    try:
        await call
    except grpc.aio.AioRpcError as error:
        seconds = time.monotonic() - sent_s
        trailers = dict(error.trailing_metadata() or ())
        return Outcome(error.code().name, sent_s, seconds, PUSHBACK in trailers)
    outcome = Outcome("OK", sent_s, time.monotonic() - sent_s)
    if reads_queue_ms:
        outcome.queue_ms = float(dict(await call.trailing_metadata())[QUEUE_MS])
    return outcome


async def closed(
    target: str, messages: Sequence[bytes], *, callers: int, seconds: float, deadline_s: float = 30.0
) -> list[Outcome]:
    """So many Detect calls in flight, always, for a time; on one connection."""
    outcomes: list[Outcome] = []
    async with channel(target) as made:
        method: UnaryMethod = made.unary_unary(f"/{SERVICE}/Detect")
        end = time.monotonic() + seconds

        async def caller() -> None:
            while time.monotonic() < end:
                outcomes.append(await detect_once(method, messages[len(outcomes) % len(messages)], deadline_s))

        await asyncio.gather(*(caller() for _ in range(callers)))
    return outcomes


async def paced(
    target: str,
    messages: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    deadline_s: float,
    clients: int = 64,
    seed: int = 0,
    metadata: Metadata | None = None,
    reads_queue_ms: bool = False,
) -> list[Outcome]:
    """Detect calls at random times (Poisson) of this mean rate, whatever becomes of earlier ones.

    Args:
        rate: calls a second.
        clients: connections that take turns.
        reads_queue_ms: see `detect_once`.
    """
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(uncollected())
        channels = [await stack.enter_async_context(channel(target)) for _ in range(clients)]
        await asyncio.gather(*(made.channel_ready() for made in channels))
        methods: list[UnaryMethod] = [made.unary_unary(f"/{SERVICE}/Detect") for made in channels]
        calls = []
        begun = time.monotonic()
        for number, due in enumerate(_arrivals(rate, seconds, seed)):
            if (wait := begun + due - time.monotonic()) > 0.001:
                await asyncio.sleep(wait)
            elif number % 16 == 0:
                await asyncio.sleep(0)  # late: answers must be read, too
            message = messages[number % len(messages)]
            one = detect_once(methods[number % clients], message, deadline_s, metadata, reads_queue_ms=reads_queue_ms)
            calls.append(asyncio.create_task(one))
        return await asyncio.gather(*calls)


def _arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    generator = random.Random(seed)
    due = generator.expovariate(rate)
    while due < seconds:
        yield due
        due += generator.expovariate(rate)


def capacity(target: str, messages: Sequence[bytes], *, seconds: float, callers: int = 32) -> float:
    """Detect calls a second that a server answers when so many are always in flight.

    Raises:
        RuntimeError: some failed.
    """
    run_loop(closed(target, messages, callers=callers, seconds=0.3))  # the connection, and the server's first calls
    begun = time.monotonic()
    outcomes = run_loop(closed(target, messages, callers=callers, seconds=seconds))
    failed = codes(outcomes).keys() - {"OK"}
    if failed:
        raise RuntimeError(f"expected every call of a closed loop to succeed, got {sorted(failed)}")
    return len(outcomes) / (time.monotonic() - begun)


def codes(outcomes: Iterable[Outcome]) -> Counter[str]:
    """How often each status came."""
    return Counter(outcome.code for outcome in outcomes)


def percentile_ms(outcomes: Iterable[Outcome], share: float) -> float:
    """A percentile of how long calls took; 0 when there are none."""
    seconds = [outcome.seconds for outcome in outcomes]
    return float(1000 * np.percentile(seconds, share)) if seconds else 0.0
