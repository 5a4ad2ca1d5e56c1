"""The tensor that the Open Inference Protocol's one model takes: images, as pixels or as files, raw or typed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from protos import inference as pb
from service.errors import ErrorReason, InvalidRequest
from service.rpc.convert import Picture

__all__ = ["INPUT", "Images", "images_of", "refuse_parameters"]

INPUT = "images"
RAW, CONTENTS, SHAPE = "raw_input_contents[0]", "inputs[0].contents", "inputs[0].shape"
"""Paths of fields, for errors."""

Size: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Images:
    """What a request is about."""

    count: int
    size: Size | None
    """Height, width and channels of each; None of files."""
    pictures: Iterator[Picture]
    """To be taken once; raises InvalidRequest at one whose typed elements are no bytes."""


def refuse_parameters(parameters: Mapping[str, pb.InferParameter], where: str) -> None:
    """Refuses every parameter of a tensor: there is none that we could honour.

    Raises:
        InvalidRequest: there is one.
    """
    for name in parameters:
        raise InvalidRequest(
            f"{where}: expected no parameters of a tensor, got {name[:64]!r}; shared memory and classification are not "
            "served",
            field=f"{where}.parameters",
        )


def images_of(message: pb.ModelInferRequest, most: int) -> Images:
    """The images of a request, 1 to `most`.

    Raises:
        InvalidRequest: the tensors are not as the protocol has them. Also from the iterator, at an image whose typed
            elements are no bytes. What is wrong with an image as an image is not looked at.
    """
    if [tensor.name for tensor in message.inputs] != [INPUT]:
        names = ", ".join(repr(tensor.name[:64]) for tensor in message.inputs[:4])
        raise InvalidRequest(f"inputs: expected one, {INPUT!r}, got {names or 'none'}", field="inputs")
    tensor = message.inputs[0]
    refuse_parameters(tensor.parameters, "inputs[0]")
    is_raw = bool(message.raw_input_contents)
    if is_raw and len(message.raw_input_contents) != 1:
        found = len(message.raw_input_contents)
        raise _bad(f"raw_input_contents: expected 1 entry, as there is 1 input, got {found}", "raw_input_contents")
    if is_raw and tensor.HasField("contents"):
        raise _bad("contents: expected to be unset where raw_input_contents is used; send one of them", CONTENTS)
    shape = tuple(tensor.shape[:5])
    axes = {"UINT8": 4, "BYTES": 1}.get(tensor.datatype)
    if axes is None:
        raise _bad(
            f"datatype: expected UINT8 (pixels) or BYTES (encoded files), got {tensor.datatype[:64]!r}",
            "inputs[0].datatype",
        )
    if len(shape) != axes:
        wanted = "[n, height, width, channels]" if axes == 4 else "[n]"
        raise _bad(f"shape: expected {wanted} of {tensor.datatype}, got {list(shape)}", SHAPE)
    if not 1 <= shape[0] <= most:
        raise InvalidRequest(f"{INPUT}: expected 1 to {most} images, got {shape[0]}", field=SHAPE)
    if axes == 1:
        files = _raw_files(message.raw_input_contents[0], shape[0]) if is_raw else _typed_files(tensor, shape[0])
        return Images(shape[0], None, (Picture(file, "", None) for file in files))
    size = (shape[1], shape[2], shape[3])
    if min(size) < 1:
        raise _bad(f"shape: expected a height, width and channels of 1 or more, got {list(shape)}", SHAPE)
    pixels = (
        _raw_pixels(message.raw_input_contents[0], shape[0], size) if is_raw else _typed_pixels(tensor, shape[0], size)
    )
    return Images(shape[0], size, pixels)


def _bad(text: str, field: str) -> InvalidRequest:
    return InvalidRequest(f"{INPUT}: {text}", reason=ErrorReason.BAD_TENSOR, field=field)


def _check_length(found: int, count: int, size: Size, unit: str, field: str) -> int:
    """Elements of one image."""
    each = math.prod(size)
    if found != count * each:
        sizes = " x ".join(map(str, (count, *size)))
        raise _bad(f"expected {sizes} = {count * each} {unit}, got {found}", field)
    return each


def _raw_pixels(raw: bytes, count: int, size: Size) -> Iterator[Picture]:
    each = _check_length(len(raw), count, size, "bytes", RAW)
    return (Picture(raw[i * each : (i + 1) * each], "", size) for i in range(count))


def _typed_pixels(tensor: pb.ModelInferRequest.InferInputTensor, count: int, size: Size) -> Iterator[Picture]:
    values = _typed(tensor, "uint_contents").uint_contents
    each = _check_length(len(values), count, size, "uint_contents", CONTENTS)
    return map(partial(_typed_image, values, each, size), range(count))


def _typed_image(values: Sequence[int], each: int, size: Size, i: int) -> Picture:
    """One at a time: 16 million numbers would hold up the loop for 0.4 s."""
    try:
        return Picture(bytes(values[i * each : (i + 1) * each]), "", size)
    except ValueError:
        raise _bad("uint_contents: expected numbers from 0 to 255 as UINT8, got larger ones", CONTENTS) from None


def _typed(tensor: pb.ModelInferRequest.InferInputTensor, wanted: str) -> pb.InferTensorContents:
    others = [field.name for field, _ in tensor.contents.ListFields() if field.name != wanted]
    if others:
        raise _bad(f"contents: expected {wanted} of {tensor.datatype}, got {others[0]}", CONTENTS)
    return tensor.contents


def _typed_files(tensor: pb.ModelInferRequest.InferInputTensor, count: int) -> Sequence[bytes]:
    files = _typed(tensor, "bytes_contents").bytes_contents
    if len(files) != count:
        raise _bad(f"bytes_contents: expected {count} elements, as shape says, got {len(files)}", CONTENTS)
    return files


def _raw_files(raw: bytes, count: int) -> list[bytes]:
    files, position = [], 0
    for _ in range(count):
        start = position + 4
        position = start + int.from_bytes(raw[position:start], "little")
        files.append(raw[start:position])
    if position != len(raw):
        raise _bad(
            f"raw_input_contents: expected {count} elements, each a little-endian length of 4 bytes and as many bytes, "
            f"got {len(raw)} bytes that are cut short or too many",
            RAW,
        )
    return files
