"""An image in any of the forms that a caller has it in, as a message."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from protos import detection_pb2 as pb
from service.detection.types import Bytes8, Detection
from service.errors import AdvsentryError, ErrorReason, InvalidRequest
from service.files import read_file
from service.rpc.read_answers import Options, image_message, options_message, result_of

__all__ = [
    "Image",
    "PillowImage",
    "Prepared",
    "batch_outcomes",
    "batch_request",
    "detect_request",
    "message_of",
    "outcome_of",
    "prepare",
    "stream_options",
    "stream_request",
]

AROUND_BYTES = 1024
"""What surrounds an image in its message, at most: ids and options."""


class PillowImage(Protocol):
    """What is used of a `PIL.Image.Image`, so that Pillow need not be there."""

    @property
    def mode(self) -> str:
        """Such as `RGB`."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""

    def tobytes(self) -> bytes:
        """Pixels, row after row."""


Image: TypeAlias = "bytes | Path | Bytes8 | PillowImage"
"""The content of a PNG, JPEG or WebP file, the path of one, a uint8 array (height, width, channels) or (height, width),
or a Pillow image of mode L or RGB."""

_CHANNELS = {"L": 1, "RGB": 3}


class Prepared:
    """An image that is ready to be sent, or why it is not."""

    __slots__ = ("error", "message", "number")

    def __init__(self, number: int, message: pb.Image, error: InvalidRequest | None = None) -> None:
        self.number = number
        self.message = message
        self.error = error


def message_of(image: Image, most_bytes: int) -> pb.Image:
    """The message of one image.

    Args:
        most_bytes: of a whole message.

    Raises:
        InvalidRequest: a file that cannot be read, an array or Pillow image that is none of `Image`, or one too large.
    """
    if isinstance(image, Path):
        return pb.Image(encoded=pb.EncodedImage(data=read_file(image, most_bytes - AROUND_BYTES)))
    if isinstance(image, bytes | np.ndarray):
        message = image_message(image)
    elif isinstance(image, bytearray | memoryview):
        message = image_message(bytes(image))
    elif hasattr(image, "mode") and hasattr(image, "tobytes"):
        message = _of_pillow(image)
    else:
        raise InvalidRequest(
            f"expected bytes, a path, a uint8 array or a Pillow image, got {type(image).__name__}",
            reason=ErrorReason.BAD_TENSOR,
            field="image",
        )
    if message.ByteSize() > most_bytes - AROUND_BYTES:
        raise InvalidRequest(
            f"expected at most {most_bytes - AROUND_BYTES} bytes, got {message.ByteSize()}",
            reason=ErrorReason.TOO_MANY_BYTES,
            field="image",
        )
    return message


def prepare(number: int, image: Image, most_bytes: int) -> Prepared:
    """The same for one of many: what is wrong with it is kept, and an empty image takes its place on the wire.

    The server then answers every item, and answers stay in order.
    """
    try:
        return Prepared(number, message_of(image, most_bytes))
    except InvalidRequest as error:
        return Prepared(number, pb.Image(), error)


def _of_pillow(image: PillowImage) -> pb.Image:
    channels = _CHANNELS.get(image.mode)
    if channels is None:
        raise InvalidRequest(
            f"expected a Pillow image of mode {' or '.join(_CHANNELS)}, got {image.mode}; use image.convert()",
            reason=ErrorReason.BAD_TENSOR,
            field="image",
        )
    width, height = image.size
    try:
        data = image.tobytes()  # here an opened file is read
    except (OSError, SyntaxError, ValueError) as error:  # as Pillow's decoders raise
        raise InvalidRequest(
            f"the Pillow image cannot be read: {error}", reason=ErrorReason.UNDECODABLE, field="image"
        ) from error
    return pb.Image(raw=pb.RawImage(height=height, width=width, channels=channels, data=data))


def detect_request(image: Image, options: Options | None, most_bytes: int) -> pb.DetectRequest:
    """A request about one image.

    Raises:
        InvalidRequest: as `message_of`.
    """
    return pb.DetectRequest(image=message_of(image, most_bytes), options=_options(options))


def batch_request(images: Sequence[Prepared], options: Options | None) -> pb.BatchDetectRequest:
    """A request about several images."""
    return pb.BatchDetectRequest(images=[image.message for image in images], options=_options(options))


def batch_outcomes(images: Sequence[Prepared], answer: pb.BatchDetectResponse) -> list[Detection | AdvsentryError]:
    """What became of the images of a batch.

    Raises:
        AdvsentryError: there are fewer answers than images, or more.
    """
    if len(answer.results) != len(images):
        raise AdvsentryError(f"expected {len(images)} answers, the server gave {len(answer.results)}")
    results = [result_of(result) for result in answer.results]
    return [image.error or result for image, result in zip(images, results, strict=True)]


def stream_options(options: Options | None) -> pb.StreamOptions:
    """What the first request of a stream says."""
    return pb.StreamOptions(options=_options(options), preserve_order=True)


def stream_request(image: Prepared, options: pb.StreamOptions | None) -> pb.StreamDetectRequest:
    """A request of a stream.

    Args:
        options: in the first one only.
    """
    return pb.StreamDetectRequest(item_id=str(image.number), image=image.message, stream_options=options)


def outcome_of(image: Prepared, answer: pb.StreamDetectResponse) -> Detection | AdvsentryError:
    """What became of an image of a stream.

    Raises:
        AdvsentryError: the answer is another image's.
    """
    if answer.item_id != str(image.number):
        raise AdvsentryError(f"the server answered item {answer.item_id!r} where {image.number} was due")
    return image.error or result_of(answer.result)


def _options(options: Options | None) -> pb.DetectOptions | None:
    try:
        return None if options is None else options_message(options)
    except (TypeError, ValueError) as error:  # a number that no field holds, a text where there should be a number
        raise InvalidRequest(f"options: {error}", field="options") from error
