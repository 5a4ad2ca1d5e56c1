"""What is fuzzed: bytes in; only the errors that a stranger may cause come out, in little time."""

import contextlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import cast

from prometheus_client import CollectorRegistry

from service.detection.bundle import SHIPPED
from service.detection.engine import Engine
from service.detection.images import ImageLimits, decode_image, header_pixels, raw_image
from service.errors import InvalidRequest, Overloaded, PermissionRefused, UnknownModel
from service.metrics import Metrics
from service.rpc import convert, convert_inference, inference_facts
from service.rpc.convert import Asked, Picture
from service.rpc.pipeline import Pipeline, Policy, Queue

__all__ = ["ALLOWED", "TARGETS", "TooSlow", "run"]

ALLOWED = (InvalidRequest, PermissionRefused, UnknownModel, Overloaded)
"""What a stranger's bytes may lead to."""
LIMITS = ImageLimits(max_bytes=2**20, max_pixels=10**6)
MOST = 64
SLOWEST_S = 2.0
"""Of processor time for one input; far more than any takes."""


class TooSlow(Exception):
    """An input took longer than SLOWEST_S."""


@lru_cache(maxsize=1)
def _pipelines() -> tuple[Pipeline, Pipeline]:
    """Of a bundle that takes its own size only, and of one that takes any; without a queue."""
    made = [
        Pipeline(
            Engine.load(SHIPPED / name, threads=1),
            cast(Queue, None),
            ThreadPoolExecutor(1),
            policy=Policy(images=LIMITS, max_batch_items=MOST),
            metrics=Metrics(CollectorRegistry()),
        )
        for name in ("digits", "gtsrb")
    ]
    return made[0], made[1]


def _served(asked: Asked, pictures: Iterable[Picture]) -> None:
    """What every call does with a request before its images are queued, by both bundles."""
    for pipeline in _pipelines():
        pipeline.apply(asked)
    for picture in pictures:
        for pipeline in _pipelines():
            pipeline.decoder.decodes_inline(picture)
            try:
                image = pipeline.decoder.decode_now(picture)
            except InvalidRequest as error:
                if error.reason is None:
                    raise AssertionError("an image was refused without a reason") from error
                continue
            shape = pipeline.engine.bundle.manifest.input
            assert image.shape == (shape.height, shape.width, shape.channels)


def _detect(data: bytes) -> None:
    request = convert.detect_request(data)
    _served(request.asked, [request.picture])


def _batch(data: bytes) -> None:
    request = convert.batch_request(data, MOST)
    _served(request.asked, request.pictures)


def _stream(data: bytes) -> None:
    item = convert.stream_item(data)
    _served(item.asked, [item.picture])


def _infer(data: bytes) -> None:
    manifest = _pipelines()[0].engine.bundle.manifest
    request = convert_inference.infer_request(convert_inference.received(data, MOST), manifest, MOST)
    _served(request.asked, request.images.pictures)


def _facts(data: bytes) -> None:
    """The readers of requests that carry no image; the first byte chooses."""
    if data[:1] == b"\0":
        convert.info_request(data[1:])
    elif data[:1] == b"\1":
        inference_facts.model_request(data[1:])
    else:
        inference_facts.check_empty("ServerLive", data[1:])


def _image(data: bytes) -> None:
    """Files, straight into the decoder of each bundle."""
    header_pixels(data, LIMITS)
    for pipeline in _pipelines():
        shape = pipeline.engine.bundle.manifest.input
        with contextlib.suppress(InvalidRequest):
            image = decode_image(data, shape, LIMITS, resizer=pipeline.engine.resizer)
            assert image.shape == (shape.height, shape.width, shape.channels)


def _tensor(data: bytes) -> None:
    """Raw tensors: the first 12 bytes are height, width and channels."""
    size = [int.from_bytes(data[i : i + 4], "little") for i in (0, 4, 8)]
    for pipeline in _pipelines():
        shape = pipeline.engine.bundle.manifest.input
        with contextlib.suppress(InvalidRequest):
            image = raw_image(data[12:], size, shape, LIMITS, resizer=pipeline.engine.resizer)
            assert image.shape == (shape.height, shape.width, shape.channels)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "detect": _detect,
    "batch": _batch,
    "stream": _stream,
    "infer": _infer,
    "facts": _facts,
    "image": _image,
    "tensor": _tensor,
}


def run(name: str, data: bytes) -> None:
    """One input into one target.

    Raises:
        TooSlow: it took too long.
        Exception: whatever else than what is allowed came out: a defect.
    """
    begun = time.process_time()
    with contextlib.suppress(*ALLOWED):
        TARGETS[name](data)
    if (took := time.process_time() - begun) > SLOWEST_S:
        raise TooSlow(f"{name}: {len(data)} bytes took {took:.1f} s")
