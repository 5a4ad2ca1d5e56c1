"""One ModelStreamInfer call: requests are worked on at once, as many as there is room for, and answered in order."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import grpc

from service.errors import AdvsentryError, Unavailable
from service.rpc import convert_inference as convert
from service.rpc.call import current_call
from service.rpc.convert import Picture
from service.rpc.decoding import INLINE_BYTES
from service.rpc.inference_call import infer
from service.rpc.pipeline import Pipeline, Served
from service.rpc.reading import StreamReader

__all__ = ["InferenceStream"]

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"

REAL_STATUS = ("triton_grpc_error", "true")
"""The header by which a client asks that a failure ends the stream with its status."""


@dataclass(eq=False, slots=True)
class _Item:
    images: int
    taken: int
    """Of these, those that count as its caller's."""
    work: "asyncio.Task[bytes]"


class InferenceStream:
    """A reader that starts requests, and a writer that waits for the oldest of them."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._open: deque[_Item] = deque()
        self._images = 0
        self._fails_whole = False
        self._ends: float | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def serve(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Reads and answers until the client has sent all, or the server is draining and nothing is open."""
        left_s: float | None = context.time_remaining()  # None without a deadline, whatever its stub says
        self._ends = None if left_s is None else time.monotonic() + left_s
        self._fails_whole = any((key, value) == REAL_STATUS for key, value in context.invocation_metadata() or ())
        self._served.to_wake.add(self._news)
        reader = StreamReader(requests, self._read, self._news.set)
        try:
            while self._open or not reader.is_done:
                self._news.clear()
                await self._write(context)
                if not reader.is_done:
                    self._check_draining()
                    await self._news.wait()
            reader.check()  # what was wrong with a message ends the call
        finally:
            self._served.to_wake.discard(self._news)
            for item in self._open:
                item.work.cancel()
            await asyncio.gather(reader.leave(), *(item.work for item in self._open), return_exceptions=True)

    async def _write(self, context: Context) -> None:
        while self._open:
            item = self._open[0]
            answer = await item.work
            self._open.popleft()
            self._images -= item.images
            current_call().gave(item.taken)
            self._room.set()
            await context.write(answer)

    def _check_draining(self) -> None:
        if self._served.is_draining:
            raise Unavailable("the server is shutting down; send the rest to another")

    async def _read(self, data: bytes) -> None:
        self._check_draining()
        await self._take(data)

    async def _take(self, data: bytes) -> None:
        """Starts a request as soon as there is room for it; holds on to nothing of this bundle after it."""
        pipeline = self._served.current
        policy = pipeline.policy
        came = convert.received(data, policy.max_batch_items)
        try:
            request = convert.infer_request(came, pipeline.engine.bundle.manifest, policy.max_batch_items)
            count, call = request.images.count, current_call()
            await self._window(count, policy.stream_window)
            await call.room(count)
            call.takes(items=count, size_bytes=len(data))
        except AdvsentryError as error:
            await self._window(1, policy.stream_window)
            self._start(1, 0, self._refusal(came.request_id, error))
            return
        whole = Picture(data, "", request.images.size)
        if len(data) <= INLINE_BYTES and pipeline.decoder.decodes_inline(whole):
            self._start(count, count, self._answer(pipeline, request))
        else:
            await pipeline.decoder.room(whole)
            pipeline.decoder.reserve(whole)
            work = self._start(count, count, self._answer(pipeline, request))
            work.add_done_callback(partial(_release, pipeline, whole))

    async def _window(self, images: int, most: int) -> None:
        while self._images and self._images + images > most:
            self._room.clear()
            await self._room.wait()

    def _start(self, images: int, taken: int, work: Coroutine[None, None, bytes]) -> "asyncio.Task[bytes]":
        self._images += images
        task = asyncio.create_task(work)
        self._open.append(_Item(images, taken, task))
        self._news.set()
        return task

    async def _refusal(self, request_id: str, error: AdvsentryError) -> bytes:
        if self._fails_whole:
            raise error
        return convert.stream_error(request_id, error)

    async def _answer(self, pipeline: Pipeline, request: convert.InferRequest) -> bytes:
        left_s = None if self._ends is None else self._ends - time.monotonic()
        try:
            answer, _ = await infer(pipeline, request, left_s, in_stream=True)
            return convert.stream_answer(answer)
        except AdvsentryError as error:
            return await self._refusal(request.request_id, error)
        except Exception as error:
            if self._fails_whole:
                raise
            asyncio.get_running_loop().call_exception_handler({"message": "an item failed", "exception": error})
            return convert.stream_error(request.request_id, AdvsentryError("internal error"))


def _release(pipeline: Pipeline, whole: Picture, _: "asyncio.Task[bytes]") -> None:
    pipeline.decoder.release(whole)
