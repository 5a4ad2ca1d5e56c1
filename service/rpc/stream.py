"""One StreamDetect call: a reader that takes what there is room for, a writer that sends what is ready.

A stream outlives the bundle that it began with: each item goes to the one that is served when it is read.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import TypeAlias

import grpc

from protos import detection_pb2 as pb
from service.detection.types import Bytes8, Scored
from service.errors import AdvsentryError, InvalidRequest, Unavailable
from service.rpc import convert
from service.rpc.call import current_call
from service.rpc.convert import Asked, Picture, StreamWriter, Timings
from service.rpc.pipeline import Applied, Pipeline, Served
from service.rpc.reading import StreamReader

__all__ = ["Stream"]

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"

HELD = 64
"""Images that a stream keeps back while it is busy writing answers. They then run together: with a graph of 13 us an
image, batches of 11 cost 25 us an image more than these."""


@dataclass(frozen=True, slots=True, eq=False)
class _Bound:
    """What the stream asked for, bound to one bundle."""

    pipeline: Pipeline
    applied: Applied
    writer: StreamWriter


class _Slot:
    """An item between its reading and its answer; the waiter that the queue calls back."""

    __slots__ = ("_stream", "bound", "decode_s", "error", "has_left", "item_id", "row", "started", "work")

    def __init__(self, stream: "Stream", bound: _Bound, item_id: str, started: float) -> None:
        self._stream = stream
        self.bound = bound
        self.item_id = item_id
        self.started = started
        self.decode_s = 0.0
        self.row: Scored | None = None
        self.error: AdvsentryError | None = None
        self.has_left = False
        self.work: asyncio.Task[None] | None = None
        """Decodes it, when that is done in a thread."""

    @property
    def is_answered(self) -> bool:
        return self.row is not None or self.error is not None

    @property
    def is_settled(self) -> bool:
        return self.has_left or self.row is not None or self.error is not None

    def scored(self, row: Scored) -> None:
        self.row = row
        self._stream.has_news(self)

    def failed(self, error: AdvsentryError) -> None:
        self.error = error
        self._stream.has_news(self)

    def queued(self, work: "asyncio.Task[None]") -> None:
        """Takes note of why it could not be decoded or queued."""
        error = None if work.cancelled() else work.exception()
        if isinstance(error, AdvsentryError):
            self.failed(error)
        elif error is not None:
            self.failed(AdvsentryError("internal error"))
            asyncio.get_running_loop().call_exception_handler({"message": "an item failed", "exception": error})

    def leave(self) -> None:
        self.has_left = True
        if self.work is not None:
            self.work.cancel()


class Stream:
    """The state of one call.

    No item has a task or a future of its own unless it is decoded in a thread: the queue calls its slot back, and the
    writer answers everything that is ready together before it waits again.
    """

    def __init__(self, served: Served, meta_of: Callable[[Pipeline], pb.ResponseMeta]) -> None:
        self._served = served
        self._meta_of = meta_of
        self._key = current_call().key
        self._asked: Asked | None = None
        self._bound: _Bound | None = None
        self._in_order = False
        self._ends: float | None = None
        self._open: dict[_Slot, None] = {}  # in the order of reading
        self._ready: deque[_Slot] = deque()
        self._held: deque[tuple[Bytes8, float, _Slot]] = deque()
        self._is_writing = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def serve(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Reads and answers until the client has sent all, or the server is draining and nothing is open."""
        left_s: float | None = context.time_remaining()  # None without a deadline, whatever its stub says
        self._ends = None if left_s is None else time.monotonic() + left_s
        reader = StreamReader(requests, self._read, self._news.set)
        self._served.to_wake.add(self._news)
        try:
            while not (reader.is_done and not self._open):
                await self._wait_for_news()
                await self._write_ready(context)
                if self._bound is not None and self._bound.pipeline is not self._served.current:
                    self._bound = None  # an idle stream would keep the memory of what was served before
                if reader.is_done and not isinstance(reader.error, AdvsentryError | None):
                    reader.check()
                elif self._served.is_draining and not self._open and not reader.is_done:
                    raise Unavailable("the server is shutting down; send the rest to another")
            reader.check()  # what was wrong with a message ends the call once all before it are answered
        finally:
            self._served.to_wake.discard(self._news)
            for slot in self._open:
                slot.leave()
            await reader.leave()

    async def _wait_for_news(self) -> None:
        await self._news.wait()
        self._news.clear()

    def has_news(self, slot: _Slot) -> None:
        """Takes note of an item's row or error."""
        self._ready.append(slot)
        self._news.set()

    async def _read(self, data: bytes) -> None:
        call = current_call()
        while len(self._open) >= self._served.current.policy.stream_window:
            self._room.clear()
            await self._room.wait()
        await call.room()
        await self._queue_room()
        item = convert.stream_item(data)
        call.takes(items=1, size_bytes=len(data))
        if self._asked is None:
            self._asked, self._in_order = item.asked, item.preserve_order
        await self._take(self._bind(self._asked), item.item_id, item.picture)

    async def _queue_room(self) -> None:
        """Waits until the queue has room, before a message's time begins and before it is decoded."""
        is_bulk = self._bound is not None and self._bound.applied.is_bulk
        while (queue := self._served.current.queue).is_busy(is_bulk=is_bulk, key=self._key):
            await queue.room(is_bulk=is_bulk, key=self._key)

    def _bind(self, asked: Asked) -> _Bound:
        """Options and answers of the bundle that is served now."""
        pipeline = self._served.current
        if self._bound is None or self._bound.pipeline is not pipeline:
            self._bound = _Bound(pipeline, _apply(pipeline, asked), StreamWriter(self._meta_of(pipeline)))
        return self._bound

    async def _take(self, bound: _Bound, item_id: str, picture: Picture) -> None:
        pipeline, started = bound.pipeline, time.monotonic()
        slot = _Slot(self, bound, item_id, started)
        self._open[slot] = None
        deadline = started + pipeline.policy.max_deadline_s
        if self._ends is not None:
            deadline = min(deadline, self._ends)
        if not pipeline.decoder.decodes_inline(picture):
            await pipeline.decoder.room(picture)
            pipeline.decoder.reserve(picture)
            slot.work = asyncio.create_task(self._decode_and_queue(slot, picture, deadline))
            slot.work.add_done_callback(lambda _: pipeline.decoder.release(picture))
            slot.work.add_done_callback(slot.queued)
            return
        try:
            image = pipeline.decoder.decode_now(picture)
        except AdvsentryError as error:
            slot.failed(error)
            return
        slot.decode_s = time.monotonic() - started
        self._held.append((image, deadline, slot))
        if (
            not self._is_writing
            or len(self._held) >= HELD
            or pipeline.queue.is_busy(is_bulk=bound.applied.is_bulk, key=self._key)
        ):
            await self._queue_held()

    async def _queue_held(self) -> None:
        """Puts what is kept back into the queue; reader and writer may both be at it.

        It is admitted: what has waited for room is not refused because it has waited.
        """
        while self._held:
            bound = self._held[0][2].bound
            queue, is_bulk = bound.pipeline.queue, bound.applied.is_bulk
            if queue.is_busy(is_bulk=is_bulk, key=self._key):
                await queue.room(is_bulk=is_bulk, key=self._key)
                continue
            image, deadline, slot = self._held.popleft()
            try:
                queue.put(image, deadline, slot, is_bulk=is_bulk, is_admitted=True, key=self._key)
            except AdvsentryError as error:
                slot.failed(error)

    async def _decode_and_queue(self, slot: _Slot, picture: Picture, deadline: float) -> None:
        pipeline = slot.bound.pipeline
        image = await pipeline.decoder.decode_in_thread(picture)
        slot.decode_s = time.monotonic() - slot.started
        is_bulk = slot.bound.applied.is_bulk
        while pipeline.queue.is_busy(is_bulk=is_bulk, key=self._key):
            await pipeline.queue.room(is_bulk=is_bulk, key=self._key)
        pipeline.queue.put(image, deadline, slot, is_bulk=is_bulk, is_admitted=True, key=self._key)

    async def _write_ready(self, context: Context) -> None:
        self._is_writing, call = True, current_call()
        while slots := self._next():
            answers = await self._answers(slots)
            for slot, answer in zip(slots, answers, strict=True):
                del self._open[slot]
                call.gave(1)
                self._room.set()
                await context.write(answer)
        self._is_writing = False
        await self._queue_held()

    def _next(self) -> list[_Slot]:
        """What can be answered now, in the order of answering."""
        if self._in_order:
            self._ready.clear()
            return list(takewhile(lambda slot: slot.is_answered, self._open))
        slots = list(self._ready)
        self._ready.clear()
        return slots

    async def _answers(self, slots: list[_Slot]) -> list[bytes]:
        """Of all slots, in their order; those with a row of one bundle are judged, hidden and counted together."""
        now = time.monotonic()
        good = [slot for slot in slots if slot.row is not None]
        groups = [(bound, list(same)) for bound, same in groupby(good, key=lambda slot: slot.bound)]
        answers = iter([answer for bound, same in groups for answer in await _detections(bound, same, now)])
        return [next(answers) if slot.error is None else _error(slot, slot.error, now) for slot in slots]


def _apply(pipeline: Pipeline, asked: Asked) -> Applied:
    try:
        return pipeline.apply(asked)
    except InvalidRequest as error:
        error.field = f"stream_options.{error.field}"
        raise


async def _detections(bound: _Bound, slots: list[_Slot], now: float) -> list[bytes]:
    rows = [slot.row for slot in slots if slot.row is not None]
    shown = await bound.pipeline.answer(rows, bound.applied)
    call = current_call()
    call.decode_s = max(call.decode_s, *[slot.decode_s for slot in slots])
    bound.pipeline.metrics.stage["decode"].observe_all([slot.decode_s for slot in slots if slot.work is None])
    timings = [
        Timings(
            decode_s=slot.decode_s,
            queue_s=row.queue_s,
            inference_s=row.inference_s,
            total_s=now - slot.started,
            batch_size=row.batch_size,
        )
        for slot, row in zip(slots, rows, strict=True)
    ]
    return bound.writer.detections([slot.item_id for slot in slots], shown, timings)


def _error(slot: _Slot, error: AdvsentryError, now: float) -> bytes:
    slot.bound.pipeline.count_failed(error)
    timings = Timings(decode_s=slot.decode_s, total_s=now - slot.started)
    return slot.bound.writer.error(slot.item_id, error, timings)
