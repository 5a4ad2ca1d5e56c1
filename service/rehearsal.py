"""Calls to oneself before the first caller comes, so that he does not pay for what a process does only once.

The first calls of a process load modules, fill caches of Python and gRPC, and touch memory for the first time. The
calls go the whole way, by gRPC, to a server of their own behind a Unix socket in a folder that only this user may
enter. It shares the engine with the one that will serve, and nothing that counts: its queue, metrics and limits are
its own and go with it.
"""

import asyncio
import base64
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from pathlib import Path

import grpc
import numpy as np
from prometheus_client import CollectorRegistry

from protos import detection_pb2 as pb
from protos import inference as oip
from service.detection.engine import Engine
from service.detection.types import Bytes8
from service.errors import AdvsentryError
from service.loaded import LoadedModel
from service.metrics import Metrics
from service.private_folder import private_folder
from service.rpc import convert_inference
from service.rpc.access import Access
from service.rpc.convert import SERVICE
from service.rpc.detector import DetectorServicer
from service.rpc.health import Health
from service.rpc.inference import InferenceServicer
from service.rpc.pipeline import Served
from service.rpc.read_answers import image_message
from service.rpc.server import build_server
from service.settings import Settings

__all__ = ["rehearse"]

log = logging.getLogger(__name__)

ROUNDS = 8
"""Python specialises a function's code at its eighth call or so."""
MOST_S = 0.1
"""What is left after that is not rehearsed. Where the graph is slow the rest of a call counts for little beside it."""
END_S = 1.0
"""For the calls that are cut short to end."""


async def rehearse(engine: Engine, settings: Settings, decoders: Executor) -> None:
    """Makes every kind of call with images, for `MOST_S` at most; raises nothing, whatever goes wrong.

    Args:
        engine: warm; nobody else uses it yet.
    """
    folder = private_folder()
    if folder is None:
        log.debug("no rehearsal: there is no folder for a socket")
        return
    model = LoadedModel(engine, settings, Metrics(CollectorRegistry()), lambda _: None)
    model.batcher.start()
    try:
        await _call_all(model, settings, decoders, folder)
    except TimeoutError:
        log.debug("the rehearsal was cut short after %g s", MOST_S)
    except AdvsentryError as error:
        log.info("no rehearsal, the first calls will take longer: %s", error)
    except Exception:
        log.warning("the rehearsal failed, the first calls will take longer", exc_info=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(TimeoutError):  # of a graph that hangs; the canary will find it
            async with asyncio.timeout(settings.stuck_s):
                await model.close()


async def _call_all(model: LoadedModel, settings: Settings, decoders: Executor, folder: Path) -> None:
    served, health = Served(model.pipeline(decoders)), Health((SERVICE, convert_inference.SERVICE))
    address = f"unix:{folder / 'rehearsal'}"
    server, _ = build_server(
        DetectorServicer(served, max_message_bytes=settings.max_message_bytes, max_queue_items=settings.queue_items),
        InferenceServicer(served, health),
        health,
        metrics=Metrics(CollectorRegistry()),
        address=address,
        max_message_bytes=settings.max_message_bytes,
        with_reflection=False,
        with_compression=settings.compression,
        access=Access(),
        held_bytes=settings.held_bytes,
    )
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address, options=[("grpc.enable_retries", 0)]) as channel:
            async with asyncio.timeout(MOST_S):  # of calls only: gRPC does not bear that its start or end is cut short
                for _ in range(ROUNDS):
                    await _call_each(channel, model.engine)
    finally:
        await server.stop(END_S)  # a call that was cut short has been cancelled, but the server may not know yet


async def _call_each(channel: grpc.aio.Channel, engine: Engine) -> None:
    shape = engine.bundle.manifest.input
    blank: Bytes8 = np.zeros((shape.height, shape.width, shape.channels), np.uint8)
    files = [base64.b64decode(canary.png) for canary in engine.bundle.manifest.canaries]
    images = [image_message(blank), *(pb.Image(encoded=pb.EncodedImage(data=file)) for file in files)]
    for image in images:
        await _unary(channel, f"/{SERVICE}/Detect", pb.DetectRequest(image=image).SerializeToString())
    await _unary(channel, f"/{SERVICE}/BatchDetect", pb.BatchDetectRequest(images=images).SerializeToString())
    await _stream(channel, f"/{SERVICE}/StreamDetect", _messages(images))
    tensor = oip.ModelInferRequest.InferInputTensor(name="images", datatype="UINT8", shape=[1, *blank.shape])
    request = oip.ModelInferRequest(model_name="advsentry", inputs=[tensor], raw_input_contents=[blank.tobytes()])
    await _unary(channel, f"/{convert_inference.SERVICE}/ModelInfer", request.SerializeToString())


async def _unary(channel: grpc.aio.Channel, path: str, message: bytes) -> None:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    with _refusals(path):
        await method(message)


async def _stream(channel: grpc.aio.Channel, path: str, messages: AsyncIterator[bytes]) -> None:
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
    with _refusals(path):
        async for _ in method(messages):
            pass


@contextlib.contextmanager
def _refusals(path: str) -> Iterator[None]:
    """Lets refusals pass: limits may be too low for these images, and the other calls are made all the same."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:  # which no limit is
            raise
        log.debug("the rehearsal's %s was refused: %s", path, error.details())


async def _messages(images: list[pb.Image]) -> AsyncIterator[bytes]:
    for image in images:
        yield pb.StreamDetectRequest(image=image).SerializeToString()
