"""Bytes from a stranger to one (H, W, C) array of 8 bits, or a clear refusal; bounded in time and memory."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from service.detection.graph import Resizer
from service.detection.manifest import InputShape
from service.detection.types import Bytes8
from service.errors import ErrorReason, InvalidRequest

__all__ = [
    "FORMATS",
    "MAX_STRETCH",
    "MIME_TYPES",
    "PREPROCESSING_ID",
    "ImageLimits",
    "decode_image",
    "header_pixels",
    "raw_image",
]

PREPROCESSING_ID = "decode-1"
"""Changes with every rule below that changes a pixel: calibration holds for one set of decode rules."""

MIME_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "BMP": "image/bmp"}
FORMATS = ("PNG", "JPEG", "WEBP")
"""What is decoded by default; the type comes from the magic bytes, never from a name."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIGNATURES = {
    "PNG": re.compile(re.escape(_PNG_SIGNATURE)),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "BMP": re.compile(rb"BM"),
}
_COMPRESSED_CHUNKS = (b"iCCP", b"zTXt", b"iTXt")
_MAX_COMPRESSED_CHUNKS = 8
MAX_STRETCH = 100
"""Times that an image may be longer or wider than the model's proportions. Resizing takes time and memory by the longer
side: 2 x 12,000,000 pixels, a PNG of 80 kB, keep a core busy for many seconds and take over a gigabyte."""
_EXIF_ORIENTATION = 0x0112
_EXIF_SIDEWAYS = frozenset({5, 6, 7, 8})
_GREY = frozenset({"1", "L", "LA"})
_COLOUR = frozenset({"RGB", "RGBA", "P", "PA"})


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What one image may cost."""

    max_bytes: int = 8 * 2**20
    """Of the encoded or raw image."""
    max_pixels: int = 25_000_000
    """Checked on the header, before anything is decoded."""
    formats: tuple[str, ...] = FORMATS


def decode_image(
    data: bytes, shape: InputShape, limits: ImageLimits, *, mime_type: str = "", resizer: Resizer | None = None
) -> Bytes8:
    """Decodes one PNG, JPEG or WebP image.

    Only what changes no pixel is done: EXIF orientation is applied, an opaque alpha channel dropped, a palette
    looked up. Grey is never made of colour, and nothing but the bundle's own resizer ever resizes.

    Args:
        shape: the image that the model wants.
        mime_type: what the caller says it is; empty when he says nothing.
        resizer: for an image of another height or width; without it such an image is refused. One that has the
            model's size does not go through it.

    Returns:
        (H, W, C), exactly of `shape`.

    Raises:
        InvalidRequest: with the reason; the message says what was expected and what came.
    """
    _check_bytes(len(data), limits)
    image = _open(data, limits)
    declared = mime_type.split(";")[0].strip().lower()
    if declared and declared != MIME_TYPES[str(image.format)]:
        raise _refused(
            ErrorReason.FORMAT_MISMATCH,
            f"declared as {declared[:64]!r}, but the bytes are {MIME_TYPES[str(image.format)]}; send the true type or "
            "none",
        )
    try:
        _check_header(image, shape, limits, resizes=resizer is not None)
        image.load()
        pixels = _array(ImageOps.exif_transpose(image))
    except InvalidRequest:
        raise
    except Exception as error:
        raise _refused(ErrorReason.UNDECODABLE, f"{image.format} image is damaged or cut short: {error}") from error
    height, width, channels = pixels.shape
    if (height, width, channels) == (shape.height, shape.width, shape.channels):
        return pixels
    if resizer is None or channels != shape.channels:
        raise _wrong_size(height, width, channels, shape, resizes=resizer is not None)
    return resizer.run(pixels)


def header_pixels(data: bytes, limits: ImageLimits) -> int:
    """Height times width as the header of an encoded image has them; 0 for what has none."""
    try:
        width, height = _open(data, limits).size
    except InvalidRequest:
        return 0
    return width * height


def raw_image(
    data: bytes, size: Sequence[int], shape: InputShape, limits: ImageLimits, *, resizer: Resizer | None = None
) -> Bytes8:
    """Takes one tensor: uint8, (height, width, channels), row-major, no padding.

    Args:
        size: height, width and channels as the caller gives them.
        resizer: as for `decode_image`.

    Raises:
        InvalidRequest: of another length than height x width x channels, or not what the model wants.
    """
    _check_bytes(len(data), limits)
    height, width, channels = size
    if min(size) < 1 or len(data) != height * width * channels:
        raise _refused(
            ErrorReason.BAD_TENSOR,
            f"expected {height} x {width} x {channels} = {height * width * channels} bytes of uint8, got {len(data)}",
        )
    pixels = np.frombuffer(data, np.uint8).reshape(height, width, channels)
    if (height, width, channels) == (shape.height, shape.width, shape.channels):
        return pixels
    if resizer is None or channels != shape.channels:
        wanted = _wanted(shape, resizes=resizer is not None)
        raise _refused(ErrorReason.WRONG_SIZE, f"{wanted}, got {height} x {width} x {channels}")
    if height * width > limits.max_pixels:
        raise _too_many_pixels(f"{height} x {width} = {height * width}", limits)
    _check_stretch(height, width, shape)
    return resizer.run(pixels)


def _check_bytes(length: int, limits: ImageLimits) -> None:
    if length == 0:
        raise _refused(ErrorReason.EMPTY_IMAGE, "expected an encoded or raw image, got no bytes")
    if length > limits.max_bytes:
        raise _refused(ErrorReason.TOO_MANY_BYTES, f"expected at most {limits.max_bytes} bytes, got {length}")


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    """Reads the header only."""
    known = ", ".join(limits.formats)
    _check_beside(data)
    try:
        image = Image.open(io.BytesIO(data), formats=limits.formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels("far more", limits) from error
    except UnidentifiedImageError as error:
        for name in limits.formats:
            if _SIGNATURES[name].match(data):
                raise _refused(ErrorReason.UNDECODABLE, f"{name} image is damaged or cut short") from error
        raise _refused(
            ErrorReason.FORMAT_UNSUPPORTED, f"expected {known}, got bytes that start with {data[:8]!r}"
        ) from error
    except Exception as error:
        raise _refused(ErrorReason.UNDECODABLE, f"expected {known}, got a damaged header: {error}") from error
    if image.format not in limits.formats:  # Pillow makes an MPO of a JPEG that says that there are more behind it
        raise _refused(ErrorReason.FORMAT_UNSUPPORTED, f"expected one frame, got {image.format}, which holds several")
    return image


def _check_beside(data: bytes) -> None:
    """Bounds what Pillow inflates besides the pixels: up to 1 MB for each compressed chunk of a PNG."""
    if data.startswith(_PNG_SIGNATURE) and sum(map(data.count, _COMPRESSED_CHUNKS)) > _MAX_COMPRESSED_CHUNKS:
        raise _refused(
            ErrorReason.UNDECODABLE,
            f"expected at most {_MAX_COMPRESSED_CHUNKS} compressed texts and colour profiles, got more; save the image "
            "without its metadata",
        )


def _check_header(image: Image.Image, shape: InputShape, limits: ImageLimits, *, resizes: bool) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise _too_many_pixels(f"{height} x {width} = {height * width}", limits)
    if getattr(image, "n_frames", 1) > 1:
        raise _refused(ErrorReason.FORMAT_UNSUPPORTED, "expected one frame, got an animation")
    if any(
        ";16" in str(tile[3]) for tile in getattr(image, "tile", ())
    ):  # Pillow would keep the upper 8 bits and say "RGB"
        raise _refused(ErrorReason.FORMAT_UNSUPPORTED, f"expected 8-bit grey or RGB, got {image.format} of 16 bits")
    if image.mode not in _GREY | _COLOUR:
        raise _refused(
            ErrorReason.FORMAT_UNSUPPORTED,
            f"expected 8-bit grey or RGB, got {image.format} of mode {image.mode}",
        )
    # Only JPEG and WebP keep EXIF where it can be read before decoding; a PNG's comes after its pixels.
    sideways = image.format != "PNG" and image.getexif().get(_EXIF_ORIENTATION) in _EXIF_SIDEWAYS
    upright = (width, height) if sideways else (height, width)
    grey = image.mode in _GREY
    is_other_size = upright != (shape.height, shape.width)
    if (is_other_size and not resizes) or grey != (shape.channels == 1):
        raise _wrong_size(*upright, 1 if grey else 3, shape, resizes=resizes)
    if is_other_size:
        _check_stretch(*upright, shape)


def _check_stretch(height: int, width: int, shape: InputShape) -> None:
    """Refuses an image of absurd proportions."""
    long, wide = height * shape.width, width * shape.height
    if max(long, wide) > MAX_STRETCH * min(long, wide):
        raise _refused(
            ErrorReason.WRONG_SIZE,
            f"expected proportions within {MAX_STRETCH} times the model's {shape.height} x {shape.width}, got "
            f"{height} x {width}",
        )


def _array(image: Image.Image) -> Bytes8:
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    elif "transparency" in image.info:  # one grey or colour that stands for "see-through"
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    if image.mode in ("LA", "RGBA"):
        if image.getchannel("A").getextrema() != (255, 255):
            raise _refused(ErrorReason.FORMAT_UNSUPPORTED, "expected an opaque image, got transparent pixels")
        image = image.convert(image.mode[:-1])
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image, dtype=np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)


def _wrong_size(height: int, width: int, channels: int, shape: InputShape, *, resizes: bool) -> InvalidRequest:
    wanted = _wanted(shape, resizes=resizes)
    return _refused(ErrorReason.WRONG_SIZE, f"{wanted}, got {height} x {width} {_colours(channels)}")


def _wanted(shape: InputShape, *, resizes: bool) -> str:
    if resizes:
        return f"the model wants {_colours(shape.channels)} of any height and width"
    return f"the model wants {shape.height} x {shape.width} {_colours(shape.channels)} (height x width)"


def _colours(channels: int) -> str:
    return {1: "grey (1 channel)", 3: "RGB (3 channels)"}.get(channels, f"of {channels} channels")


def _too_many_pixels(got: str, limits: ImageLimits) -> InvalidRequest:
    return _refused(ErrorReason.TOO_MANY_PIXELS, f"expected at most {limits.max_pixels} pixels, got {got}")


def _refused(reason: ErrorReason, message: str) -> InvalidRequest:
    return InvalidRequest(message, reason=reason, field="image")
