"""Images that a server of 8 x 8 grey images must refuse, each with its reason and what the message says."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from service.errors import ErrorReason
from tests import tiny


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    reason: ErrorReason
    says: str
    mime_type: str = ""


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(side: int) -> bytes:
    """A black PNG of side x side, about a thousandth of its pixels long."""

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (side + 7) // 8)  # 1 bit a pixel
    lines = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def _grey() -> Image.Image:
    return Image.fromarray(tiny.images(1)[0, :, :, 0])


def _colour() -> Image.Image:
    return Image.fromarray(tiny.images(1, channels=3)[0])


def _transparent() -> Image.Image:
    image = _grey().convert("LA")
    image.putalpha(Image.fromarray(np.full((8, 8), 7, np.uint8)))
    return image


def _truncated(form: str) -> bytes:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8))
    data = encoded(noise, form)
    return data[: len(data) * 7 // 10]


def _animated() -> bytes:
    return encoded(_grey().convert("RGB"), "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])


def _several() -> bytes:
    return encoded(_grey().convert("RGB"), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])


def _deep_colour() -> bytes:
    lines = zlib.compress(b"".join(b"\0" + bytes(range(48)) for _ in range(8)))
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def _profiles(count: int) -> bytes:
    """A good PNG that has Pillow inflate a megabyte for each kilobyte of its own."""
    data = encoded(_grey(), "PNG")
    profile = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(2**20 - 16), 9))
    head = 8 + 25  # signature and IHDR
    return data[:head] + profile * count + data[head:]


_R = ErrorReason
CASES = [
    Case("nothing", b"", _R.EMPTY_IMAGE, "no bytes"),
    Case(
        "text called png", b"hello, I am a picture", _R.FORMAT_UNSUPPORTED, "bytes that start with b'hello", "image/png"
    ),
    Case("only a signature", b"\x89PNG\r\n\x1a\n", _R.UNDECODABLE, "PNG image is damaged or cut short"),
    Case("a few bytes of a jpeg", encoded(_grey(), "JPEG")[:40], _R.UNDECODABLE, "damaged"),
    Case("a few bytes of a webp", encoded(_grey(), "WEBP")[:30], _R.UNDECODABLE, "damaged"),
    Case("truncated png", _truncated("PNG"), _R.UNDECODABLE, "damaged or cut short"),
    Case("truncated jpeg", encoded(_grey(), "JPEG")[:-20], _R.UNDECODABLE, "damaged or cut short"),
    Case("bomb", bomb(9000), _R.TOO_MANY_PIXELS, "at most 25000000 pixels"),
    Case("far larger bomb", bomb(30000), _R.TOO_MANY_PIXELS, "at most 25000000 pixels"),
    Case("other size", encoded(Image.new("L", (9, 8)), "PNG"), _R.WRONG_SIZE, r"wants 8 x 8 .*got 8 x 9"),
    Case("one pixel", encoded(Image.new("L", (1, 1)), "PNG"), _R.WRONG_SIZE, "got 1 x 1"),
    Case("colour for grey", encoded(_colour(), "PNG"), _R.WRONG_SIZE, r"grey .*got 8 x 8 RGB"),
    Case("transparent", encoded(_transparent(), "PNG"), _R.FORMAT_UNSUPPORTED, "opaque"),
    Case("16 bits", encoded(Image.new("I;16", (8, 8), 9), "PNG"), _R.FORMAT_UNSUPPORTED, "8-bit grey or RGB"),
    Case("16 bits of colour", _deep_colour(), _R.FORMAT_UNSUPPORTED, "8-bit grey or RGB, got PNG of 16 bits"),
    Case("cmyk", encoded(Image.new("CMYK", (8, 8)), "JPEG"), _R.FORMAT_UNSUPPORTED, "mode CMYK"),
    Case("animation", _animated(), _R.FORMAT_UNSUPPORTED, "animation"),
    Case("several pictures in a jpeg", _several(), _R.FORMAT_UNSUPPORTED, "one frame, got MPO", "image/jpeg"),
    Case("a hundred colour profiles", _profiles(100), _R.UNDECODABLE, "at most 8 compressed"),
    Case("gif", encoded(_grey(), "GIF"), _R.FORMAT_UNSUPPORTED, "expected PNG, JPEG, WEBP"),
    Case("bmp", encoded(_grey(), "BMP"), _R.FORMAT_UNSUPPORTED, "expected PNG, JPEG, WEBP"),
    Case("other mime type", encoded(_grey(), "PNG"), _R.FORMAT_MISMATCH, "bytes are image/png", "image/jpeg"),
    Case("long mime type", encoded(_grey(), "PNG"), _R.FORMAT_MISMATCH, r"as '(x\\n){32}', but", "x\n" * 1000),
]
