"""One StreamDetect call: a reader that takes what there is room for, a writer that sends what is ready."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc

from protos import detection_pb2 as pb
from service.detection.types import Detection, Scored
from service.errors import AdvsentryError, Unavailable
from service.rpc import convert
from service.rpc.convert import StreamItem, Timings
from service.rpc.pipeline import Applied, Pipeline

__all__ = ["Stream"]

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


@dataclass(eq=False, slots=True)
class _Slot:
    """An item between its reading and its answer."""

    item_id: str
    started: float
    decode_s: float = 0.0
    outcome: Scored | AdvsentryError | None = None
    work: "asyncio.Future[Scored] | None" = field(default=None)


class Stream:
    """The state of one call.

    No item has a task of its own unless it is decoded in a thread: the queue's future calls back, and the writer sends
    everything that is ready before it waits again.
    """

    def __init__(self, pipeline: Pipeline, meta: pb.ResponseMeta) -> None:
        self._pipeline = pipeline
        self._meta = meta
        self._applied: Applied | None = None
        self._in_order = False
        self._open: dict[_Slot, None] = {}  # in the order of reading
        self._ready: deque[_Slot] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def serve(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Reads and answers until the client has sent all, or the server is draining and nothing is open."""
        reader = asyncio.create_task(self._read(requests, context))
        reader.add_done_callback(lambda _: self._news.set())
        self._pipeline.to_wake.add(self._news)
        try:
            while not (reader.done() and not self._open):
                await self._wait_for_news()
                await self._write_ready(context)
                if reader.done():
                    reader.result()  # what was wrong with a message ends the call
                elif self._pipeline.is_draining and not self._open:
                    raise Unavailable("the server is shutting down; send the rest to another")
        finally:
            self._pipeline.to_wake.discard(self._news)
            reader.cancel()
            self._leave()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reader

    async def _wait_for_news(self) -> None:
        await self._news.wait()
        self._news.clear()

    def _leave(self) -> None:
        """Takes what is not answered out of the queue."""
        for slot in self._open:
            if slot.work is not None:
                slot.work.cancel()

    async def _read(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async for data in requests:
            while len(self._open) >= self._pipeline.policy.stream_window:
                self._room.clear()
                await self._room.wait()
            item = convert.stream_item(data)
            if self._applied is None:
                self._applied = self._pipeline.apply(item.asked)
                self._in_order = item.preserve_order
            await self._take(item, context)

    async def _take(self, item: StreamItem, context: Context) -> None:
        slot = _Slot(item.item_id, time.monotonic())
        self._open[slot] = None
        deadline = self._pipeline.deadline(context.time_remaining())
        try:
            if self._pipeline.decodes_inline(item.picture):
                image = self._pipeline.decode_now(item.picture)
                slot.decode_s = time.monotonic() - slot.started
                while self._pipeline.queue.is_full:
                    await self._pipeline.queue.room()
                slot.work = self._pipeline.queue.submit(image, deadline)
            else:
                slot.work = asyncio.create_task(self._decode_and_score(slot, item, deadline))
        except AdvsentryError as error:
            self._finish(slot, error)
        else:
            slot.work.add_done_callback(lambda work: self._collect(slot, work))

    async def _decode_and_score(self, slot: _Slot, item: StreamItem, deadline: float) -> Scored:
        image = await self._pipeline.decode(item.picture)
        slot.decode_s = time.monotonic() - slot.started
        while self._pipeline.queue.is_full:
            await self._pipeline.queue.room()
        return await self._pipeline.queue.submit(image, deadline)

    def _collect(self, slot: _Slot, work: "asyncio.Future[Scored]") -> None:
        if work.cancelled():
            return
        error = work.exception()
        if error is None:
            self._finish(slot, work.result())
        elif isinstance(error, AdvsentryError):
            self._finish(slot, error)
        else:
            self._finish(slot, AdvsentryError("internal error"))
            asyncio.get_running_loop().call_exception_handler({"message": "an item failed", "exception": error})

    def _finish(self, slot: _Slot, outcome: Scored | AdvsentryError) -> None:
        slot.outcome = outcome
        self._ready.append(slot)
        self._news.set()

    async def _write_ready(self, context: Context) -> None:
        while (slot := self._next()) is not None:
            del self._open[slot]
            self._room.set()
            await context.write(self._answer(slot))

    def _next(self) -> _Slot | None:
        if not self._in_order:
            return self._ready.popleft() if self._ready else None
        self._ready.clear()
        slot = next(iter(self._open), None)
        return slot if slot is not None and slot.outcome is not None else None

    def _answer(self, slot: _Slot) -> bytes:
        assert slot.outcome is not None
        assert self._applied is not None
        total_s = time.monotonic() - slot.started
        result: Detection | AdvsentryError
        if isinstance(slot.outcome, Scored):
            scored = slot.outcome
            result = self._pipeline.answer(scored, self._applied)
            timings = Timings(
                decode_s=slot.decode_s,
                queue_s=scored.queue_s,
                inference_s=scored.inference_s,
                total_s=total_s,
                batch_size=scored.batch_size,
            )
        else:
            result = slot.outcome
            self._pipeline.count_failed(result)
            timings = Timings(decode_s=slot.decode_s, total_s=total_s)
        return convert.stream_answer(self._meta, slot.item_id, result, timings)
