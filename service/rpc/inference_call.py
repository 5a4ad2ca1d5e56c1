"""One ModelInfer, alone or in a stream: decode, queue, judge; the first image that fails is the failure of all."""

import asyncio
import time

from service.detection.types import Bytes8, Scored
from service.errors import AdvsentryError, DeadlinePassed, InvalidRequest
from service.rpc.call import current_call
from service.rpc.convert import Picture, Timings
from service.rpc.convert_inference import Answer, InferRequest
from service.rpc.detector import timings_of
from service.rpc.inference_inputs import INPUT
from service.rpc.inference_outputs import outputs_in, outputs_of
from service.rpc.pipeline import Applied, Pipeline

__all__ = ["infer"]


async def infer(
    pipeline: Pipeline, request: InferRequest, left_s: float | None, *, in_stream: bool
) -> tuple[Answer, Timings]:
    """What is said of a request's images.

    Args:
        left_s: seconds until the call's deadline; None without one.
        in_stream: waits for room in the queue, where it would else be refused. Its bytes have been reserved.

    Raises:
        AdvsentryError: of the first image that failed, with its index; or of the request.
    """
    started = time.monotonic()
    applied = _applied(pipeline, request)
    outputs = outputs_of(request.outputs, applied.reveal)
    count, call = request.images.count, current_call()
    allowed_s = request.timeout_s if left_s is None else min(left_s, request.timeout_s)
    deadline = pipeline.deadline(allowed_s, images=count)
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            images = await _decoded(pipeline, request, in_stream=in_stream)
            decode_s = time.monotonic() - started
            call.decode_s = max(call.decode_s, decode_s)
            if in_stream:
                await pipeline.queue.room(is_bulk=applied.is_bulk, key=call.key)
            rows = await pipeline.score_all(images, deadline, is_bulk=applied.is_bulk)
            scored = [_row(i, row) for i, row in enumerate(rows)]
    except (TimeoutError, AdvsentryError) as error:
        known = _late(count) if isinstance(error, TimeoutError) else error
        for _ in range(count):
            pipeline.count_failed(known)
        raise known from None
    shown = await pipeline.answer(scored, applied)
    answer = Answer(
        request=request,
        outputs=outputs_in(shown, outputs),
        shown=shown,
        bundle=pipeline.engine.bundle,
        provider=pipeline.engine.graph.provider,
    )
    return answer, timings_of(started, decode_s, scored)


def _applied(pipeline: Pipeline, request: InferRequest) -> Applied:
    try:
        return pipeline.apply(request.asked)
    except InvalidRequest as error:
        error.field = "parameters[target_fpr]"  # the only one of the options that this API has
        raise


async def _decoded(pipeline: Pipeline, request: InferRequest, *, in_stream: bool) -> list[Bytes8]:
    images: list[Bytes8] = []
    try:
        for picture in request.images.pictures:
            if images:
                await asyncio.sleep(0)  # decoding all on the loop would hold up the others until the last image
            images.append(await _decode(pipeline, picture, in_stream=in_stream))
    except AdvsentryError as error:
        raise _at(len(images), error) from None
    return images


async def _decode(pipeline: Pipeline, picture: Picture, *, in_stream: bool) -> Bytes8:
    if in_stream and not pipeline.decoder.decodes_inline(picture):
        return await pipeline.decoder.decode_in_thread(picture)
    return await pipeline.decoder.decode(picture)


def _row(i: int, row: Scored | AdvsentryError) -> Scored:
    if isinstance(row, AdvsentryError):
        raise _at(i, row)
    return row


def _at(i: int, error: AdvsentryError) -> AdvsentryError:
    """The same error, whose text says of which image it is."""
    error.args = (f"{INPUT}[{i}]: {error}",)
    if isinstance(error, InvalidRequest):
        error.field = "inputs[0]"
    return error


def _late(count: int) -> DeadlinePassed:
    return DeadlinePassed(f"the deadline passed before all {count} images were answered")
