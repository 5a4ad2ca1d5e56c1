"""Calls at their moments, and how each ended."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from deploy.open_loop import on_time
from deploy.reliability.callers import Metadata, Outcome, UnaryMethod, channel, detect_once, uncollected
from service.detection.types import Float64s
from service.rpc.convert import SERVICE

__all__ = ["Door", "Sent", "send"]

READY_S = 10.0
"""For all connections to stand."""


@dataclass(frozen=True, kw_only=True)
class Door:
    """Where to call, and as who."""

    target: str
    credentials: grpc.ChannelCredentials | None = None
    """None for plaintext."""
    metadata: Metadata | None = None


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What became of N calls; each array is (N,)."""

    due_s: Float64s
    late_ms: Float64s
    """How late the client was to send."""
    latency_ms: Float64s
    """From the moment at which a call was due, so that a late client hides nothing; NaN of those that failed."""
    queue_ms: Float64s
    """How long the image waited, as the server says; NaN of those that failed."""
    codes: Sequence[str]
    client_share: float
    """Of its core that the client took."""


async def send(door: Door, messages: Sequence[bytes], due_s: Float64s, *, deadline_s: float, connections: int) -> Sent:
    """One Detect call at each moment, over connections that take turns.

    Args:
        messages: serialised requests, sent in turn.
        due_s: (N,) seconds from the start, rising.

    Raises:
        TimeoutError: the server is not reached.
    """
    late_ms = np.zeros(len(due_s))
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(uncollected())
        channels = [await stack.enter_async_context(channel(door.target, door.credentials)) for _ in range(connections)]
        async with asyncio.timeout(READY_S):
            await asyncio.gather(*(made.channel_ready() for made in channels))
        methods: list[UnaryMethod] = [made.unary_unary(f"/{SERVICE}/Detect") for made in channels]
        start, busy = time.perf_counter() + 0.05, time.process_time()

        async def call(number: int) -> Outcome:
            late_ms[number] = 1000 * (time.perf_counter() - start - due_s[number])
            message = messages[number % len(messages)]
            method = methods[number % connections]
            return await detect_once(method, message, deadline_s, door.metadata, reads_queue_ms=True)

        outcomes = await on_time(due_s, start, call)
        share = (time.process_time() - busy) / (time.perf_counter() - start)
    is_ok = np.array([outcome.code == "OK" for outcome in outcomes])
    took_ms = 1000 * np.array([outcome.seconds for outcome in outcomes])
    return Sent(
        due_s=due_s,
        late_ms=late_ms,
        latency_ms=np.where(is_ok, late_ms + took_ms, np.nan),
        queue_ms=np.array([outcome.queue_ms for outcome in outcomes]),
        codes=[outcome.code for outcome in outcomes],
        client_share=share,
    )
