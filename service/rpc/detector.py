"""The servicer of `advsentry.v1.DetectorService`."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

import grpc

from protos import detection_pb2 as pb
from service.detection.engine import MAX_ALPHA
from service.detection.types import Bytes8, Scored
from service.errors import AdvsentryError, DeadlinePassed, InvalidRequest, Overloaded
from service.rpc import convert
from service.rpc.call import current_call
from service.rpc.convert import ServerFacts, Timings
from service.rpc.pipeline import Pipeline, Served
from service.rpc.status import times_trailers
from service.rpc.stream import Stream

__all__ = ["DetectorServicer", "tell", "timings_of"]

TURN_S = 0.001
"""For which a call decodes before it lets the loop serve others."""
DOOR_S = 0.02
"""Time left, below which a status may come too late: one that gRPC fails to send keeps its memory for good
(https://github.com/grpc/grpc/issues/43360)."""

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class DetectorServicer:
    """Takes and gives bytes, so that what is no message gets a status of our own."""

    def __init__(self, served: Served, *, max_message_bytes: int, max_queue_items: int) -> None:
        self._served = served
        self._max_message_bytes = max_message_bytes
        self._max_queue_items = max_queue_items
        self._metas: WeakKeyDictionary[Pipeline, pb.ResponseMeta] = WeakKeyDictionary()

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[bytes, bytes]]":
        """What a server is given, by method."""
        return {
            "Detect": grpc.unary_unary_rpc_method_handler(self.detect),
            "BatchDetect": grpc.unary_unary_rpc_method_handler(self.batch_detect),
            "StreamDetect": grpc.stream_stream_rpc_method_handler(self.stream_detect),
            "GetModelInfo": grpc.unary_unary_rpc_method_handler(self.get_model_info),
        }

    def door(self, context: Context) -> None:
        """Turns a Detect call away before its message is read, when an interactive image would be: it can be no better.

        One whose time is nearly over is let pass; it ends by itself.

        Raises:
            Overloaded, DeadlinePassed, Unavailable: as `Queue.admit`; the image is counted as failed.
        """
        left_s = context.time_remaining()
        if left_s is not None and left_s < DOOR_S:  # type: ignore[redundant-expr]  # None without a deadline
            return
        pipeline = self._served.current
        deadline = pipeline.deadline(left_s)
        try:
            pipeline.queue.admit(1, deadline, key=current_call().key)
        except AdvsentryError as error:
            pipeline.count_failed(error)
            raise

    async def detect(self, data: bytes, context: Context) -> bytes:
        """One image."""
        started = time.monotonic()
        pipeline = self._served.current
        request = convert.detect_request(data)
        current_call().takes(items=1, size_bytes=len(data), request_id=request.request_id)
        applied = pipeline.apply(request.asked)
        deadline = pipeline.deadline(context.time_remaining())
        try:
            image = await pipeline.decoder.decode_until(request.picture, deadline)
            current_call().decode_s = decode_s = time.monotonic() - started
            scored = await pipeline.score(image, deadline, is_bulk=applied.is_bulk)
        except AdvsentryError as error:
            convert.locate(error, request.picture)
            pipeline.count_failed(error)
            raise
        shown = await pipeline.answer([scored], applied)
        timings = timings_of(started, decode_s, [scored])
        tell(context, timings)
        return convert.detect_answer(self._meta(pipeline), request.request_id, shown, timings)

    async def batch_detect(self, data: bytes, context: Context) -> bytes:
        """Several images, each with its own outcome."""
        started = time.monotonic()
        pipeline = self._served.current
        request = convert.batch_request(data, pipeline.policy.max_batch_items)
        _check_count(len(request.pictures), pipeline.policy.max_batch_items)
        current_call().takes(items=len(request.pictures), size_bytes=len(data), request_id=request.request_id)
        applied = pipeline.apply(request.asked)
        deadline = pipeline.deadline(context.time_remaining(), images=len(request.pictures))
        try:
            images = await _decoded(pipeline, request.pictures, deadline)
            current_call().decode_s = decode_s = time.monotonic() - started
            good = [image for image in images if not isinstance(image, AdvsentryError)]
            rows = iter(await pipeline.score_all(good, deadline, is_bulk=applied.is_bulk))
        except AdvsentryError as whole:  # of all images, also of those that were bad by themselves
            for _ in request.pictures:
                pipeline.count_failed(whole)
            raise
        outcomes = [image if isinstance(image, AdvsentryError) else next(rows) for image in images]
        errors = [outcome if isinstance(outcome, AdvsentryError) else None for outcome in outcomes]
        for error in errors:
            if error is not None:
                pipeline.count_failed(error)
        scored = [outcome for outcome in outcomes if isinstance(outcome, Scored)]
        shown = await pipeline.answer(scored, applied) if scored else None
        timings = timings_of(started, decode_s, scored)
        tell(context, timings)
        return convert.batch_answer(self._meta(pipeline), request.request_id, errors, shown, timings)

    async def stream_detect(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """One answer for each message."""
        await Stream(self._served, self._meta).serve(requests, context)

    async def get_model_info(self, data: bytes, context: Context) -> bytes:
        """What runs here."""
        convert.info_request(data)
        pipeline = self._served.current
        return convert.info_answer(pipeline.engine.bundle, self._facts(pipeline))

    def _meta(self, pipeline: Pipeline) -> pb.ResponseMeta:
        meta = self._metas.get(pipeline)
        if meta is None:
            meta = convert.meta_template(pipeline.engine.bundle, pipeline.engine.graph.provider)
            self._metas[pipeline] = meta
        return meta

    def _facts(self, pipeline: Pipeline) -> ServerFacts:
        policy, caller = pipeline.policy, current_call().caller
        return ServerFacts(
            provider=pipeline.engine.graph.provider,
            loaded_at_s=pipeline.loaded_at_s,
            max_message_bytes=self._max_message_bytes,
            max_batch_items=policy.max_batch_items,
            max_queue_items=self._max_queue_items,
            max_deadline_s=policy.max_deadline_s,
            images=policy.images,
            max_alpha=MAX_ALPHA,
            alpha_steps=pipeline.alpha_steps(pipeline.reveal_to(caller)),
            names_detectors=pipeline.names_detectors(caller),
        )


def _check_count(count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise InvalidRequest(f"images: expected 1 to {most}, got {count}; use StreamDetect for more", field="images")


async def _decoded(
    pipeline: Pipeline, pictures: Sequence[convert.Picture], deadline: float
) -> list[Bytes8 | AdvsentryError]:
    """Every picture's image, or what is wrong with it."""
    images: list[Bytes8 | AdvsentryError] = []
    turn = time.monotonic()
    for picture in pictures:
        if (now := time.monotonic()) > deadline:
            raise DeadlinePassed("the deadline passed while the images were decoded")
        if now - turn > TURN_S:
            await asyncio.sleep(0)
            turn = time.monotonic()
        try:
            images.append(await pipeline.decoder.decode_until(picture, deadline))
        except (DeadlinePassed, Overloaded):
            raise
        except AdvsentryError as error:  # of this image alone
            images.append(error)
    return images


def timings_of(started: float, decode_s: float, scored: list[Scored]) -> Timings:
    """Times of a call that began at a monotonic time: of a stage, the longest of its images."""
    return Timings(
        decode_s=decode_s,
        queue_s=max((row.queue_s for row in scored), default=0.0),
        inference_s=max((row.inference_s for row in scored), default=0.0),
        total_s=time.monotonic() - started,
        batch_size=scored[-1].batch_size if scored else 0,
    )


def tell(context: Context, timings: Timings) -> None:
    """Puts times into the call's trailing metadata."""
    context.set_trailing_metadata(times_trailers(timings.queue_s, timings.inference_s, timings.batch_size))
