"""Images that a server must refuse, and what is meant to hurt it; made anew each time, from a seed."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from protos import detection_pb2 as pb
from service.detection.manifest import InputShape

__all__ = ["bomb", "chunk", "encoded", "malformed", "png", "text_chunks"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """The file of an image, as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG, its length and checksum right."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, lines: bytes, *, bits: int = 1, colour: int = 0, before: bytes = b"") -> bytes:
    """A PNG with this header.

    Args:
        lines: compressed.
        colour: 0 is grey, 2 RGB.
        before: chunks between header and pixels.
    """
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return SIGNATURE + header + before + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def bomb(side: int) -> bytes:
    """A black PNG of side x side, about a thousandth of its pixels long."""
    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (side + 7) // 8)  # 1 bit a pixel
    return png(side, side, b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()]))


def text_chunks(shape: InputShape, count: int) -> bytes:
    """A good PNG of the model's size with so many compressed texts, each of a megabyte when inflated."""
    lines = zlib.compress(bytes((1 + shape.width * shape.channels) * shape.height))
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**20 - 16), 9)[:200])
    colour = 0 if shape.channels == 1 else 2
    return png(shape.width, shape.height, lines, bits=8, colour=colour, before=text * count)


def malformed(shape: InputShape, count: int, *, seed: int = 0) -> Iterator[tuple[str, pb.Image]]:
    """Kinds and images that a model of this shape, without a resizer, must refuse; each kind in turn.

    Args:
        seed: of what differs between two of a kind.
    """
    generator = np.random.default_rng(seed)
    for number in range(count):
        name, data = _one(number % len(_KINDS), shape, generator)
        yield name, data


def _one(kind: int, shape: InputShape, generator: np.random.Generator) -> tuple[str, pb.Image]:
    name = _KINDS[kind]
    size = (shape.width, shape.height)
    pixels = generator.integers(0, 256, (shape.height, shape.width, shape.channels), dtype=np.uint8)
    good = Image.fromarray(pixels[:, :, 0] if shape.channels == 1 else pixels)
    share = float(generator.uniform(0.2, 0.8))
    if name == "bad tensor":
        length = int(generator.integers(1, pixels.nbytes))
        raw = pb.RawImage(
            height=shape.height, width=shape.width, channels=shape.channels, data=pixels.tobytes()[:length]
        )
        return name, pb.Image(raw=raw)
    if name == "float tensor":
        data = pixels.astype(np.float32).tobytes()
        return name, pb.Image(
            raw=pb.RawImage(height=shape.height, width=shape.width, channels=shape.channels, data=data)
        )
    makers: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        "truncated png": lambda: _cut(encoded(good, "PNG"), share),
        "truncated jpeg": lambda: _cut(encoded(good, "JPEG"), share),
        "1 x 1": lambda: encoded(good.resize((1, 1)), "PNG"),
        "wrong magic": lambda: generator.bytes(8) + encoded(good, "PNG")[8:],
        "cmyk": lambda: encoded(Image.new("CMYK", size), "JPEG"),
        "16 bits": lambda: encoded(Image.new("I;16", size, int(generator.integers(1, 2**16))), "PNG"),
        "animated": lambda: encoded(
            good.convert("RGB"), "WEBP", save_all=True, append_images=[Image.new("RGB", size, "red")]
        ),
        "huge header": lambda: png(2**31 - 1, int(generator.integers(1, 2**31)), b"", bits=8),
        "other size": lambda: encoded(good.resize((shape.width + 1, shape.height)), "PNG"),
        "gif": lambda: encoded(good, "GIF"),
        "noise": lambda: generator.bytes(int(generator.integers(1, 2000))),
    }
    return name, pb.Image(encoded=pb.EncodedImage(data=makers[name]()))


def _cut(data: bytes, share: float) -> bytes:
    return data[: max(1, int(len(data) * share))]


_KINDS = (
    "truncated png",
    "1 x 1",
    "wrong magic",
    "cmyk",
    "16 bits",
    "animated",
    "huge header",
    "bad tensor",
    "float tensor",
    "truncated jpeg",
    "other size",
    "empty",
    "gif",
    "noise",
)
