"""Bytes from strangers: what is decoded, and what is refused with which reason."""

import contextlib
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from service.detection.images import ImageLimits, decode_image, raw_image
from service.detection.manifest import InputShape
from service.errors import ErrorReason, InvalidRequest
from tests import tiny
from tests.service import bad_images
from tests.service.bad_images import encoded

GREY = InputShape(height=8, width=8, channels=1)
RGB = InputShape(height=8, width=8, channels=3)
LIMITS = ImageLimits()
PIXELS = tiny.images(1)[0]
COLOURS = tiny.images(1, channels=3)[0]


@pytest.mark.parametrize("case", bad_images.CASES, ids=lambda case: case.name)
def test_a_bad_image_is_refused_with_its_reason(case: bad_images.Case) -> None:
    with pytest.raises(InvalidRequest, match=case.says) as caught:
        decode_image(case.data, GREY, LIMITS, mime_type=case.mime_type)
    assert caught.value.reason is case.reason


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_a_lossless_file_gives_its_very_pixels(form: str) -> None:
    assert np.array_equal(decode_image(encoded(Image.fromarray(COLOURS), form, lossless=True), RGB, LIMITS), COLOURS)


def test_a_jpeg_is_decoded_at_full_size() -> None:
    data = encoded(Image.fromarray(PIXELS[:, :, 0]), "JPEG", quality=100, subsampling=0)
    assert np.abs(decode_image(data, GREY, LIMITS).astype(int) - PIXELS).max() <= 3


def test_an_opaque_alpha_channel_is_dropped() -> None:
    image = Image.fromarray(COLOURS).convert("RGBA")
    assert np.array_equal(decode_image(encoded(image, "PNG"), RGB, LIMITS), COLOURS)


def test_transparent_pixels_are_refused() -> None:
    image = Image.fromarray(COLOURS).convert("RGBA")
    image.putalpha(Image.fromarray(np.full((8, 8), 254, np.uint8)))
    with pytest.raises(InvalidRequest, match="opaque"):
        decode_image(encoded(image, "PNG"), RGB, LIMITS)


def test_a_palette_is_looked_up() -> None:
    image = Image.fromarray(COLOURS).quantize(256)
    assert np.array_equal(decode_image(encoded(image, "PNG"), RGB, LIMITS), np.asarray(image.convert("RGB")))


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    wide = Image.fromarray(np.arange(4 * 8, dtype=np.uint8).reshape(4, 8) * 7)
    data = encoded(wide.convert("RGB"), "WEBP", lossless=True, exif=exif)
    upright = decode_image(data, InputShape(height=8, width=4, channels=3), LIMITS)
    assert np.array_equal(upright[:, :, 0], np.rot90(np.asarray(wide), -1))


def test_a_true_mime_type_may_carry_parameters() -> None:
    data = encoded(Image.fromarray(PIXELS[:, :, 0]), "PNG")
    assert decode_image(data, GREY, LIMITS, mime_type="Image/PNG; q=1").shape == (8, 8, 1)


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(InvalidRequest, match="at most 10 bytes, got 11") as caught:
        decode_image(b"x" * 11, GREY, ImageLimits(max_bytes=10))
    assert caught.value.reason is ErrorReason.TOO_MANY_BYTES


@pytest.mark.parametrize(
    ("size", "length", "reason"),
    [
        ((8, 8, 1), 63, ErrorReason.BAD_TENSOR),
        ((8, 8, 1), 65, ErrorReason.BAD_TENSOR),
        ((0, 8, 1), 64, ErrorReason.BAD_TENSOR),
        ((4, 16, 1), 64, ErrorReason.WRONG_SIZE),
        ((8, 8, 3), 192, ErrorReason.WRONG_SIZE),
        ((2**31, 2**31, 4), 64, ErrorReason.BAD_TENSOR),
        ((8, 8, 1), 0, ErrorReason.EMPTY_IMAGE),
    ],
    ids=str,
)
def test_a_bad_tensor_is_refused(size: tuple[int, int, int], length: int, reason: ErrorReason) -> None:
    with pytest.raises(InvalidRequest) as caught:
        raw_image(b"\0" * length, size, GREY, LIMITS)
    assert caught.value.reason is reason


def test_a_tensor_keeps_its_order() -> None:
    assert np.array_equal(raw_image(COLOURS.tobytes(), (8, 8, 3), RGB, LIMITS), COLOURS)


MEASURE = """
import resource, sys
from service.detection.images import ImageLimits, decode_image
from service.detection.manifest import InputShape
from service.errors import InvalidRequest
data = sys.stdin.buffer.read()
shape = InputShape(height=8, width=8, channels=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_image(data, shape, ImageLimits())
except InvalidRequest as error:
    print(error.reason, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_huge_picture_in_few_bytes_costs_no_memory() -> None:
    bomb = bad_images.bomb(9000)
    assert len(bomb) < 12_000
    done = subprocess.run([sys.executable, "-c", MEASURE], input=bomb, capture_output=True, check=True)
    reason, kibibytes = done.stdout.split()
    assert reason == b"TOO_MANY_PIXELS"
    assert int(kibibytes) < 16 * 1024  # decoding it takes 81 MB at least


@pytest.mark.parametrize("chunks", [1, 10_000])
def test_text_in_a_png_changes_nothing(chunks: int) -> None:
    data = encoded(Image.fromarray(PIXELS[:, :, 0]), "PNG")
    text = b"tEXtkey\0" + b"v" * 20
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    head = 8 + 25  # signature and IHDR
    assert np.array_equal(decode_image(data[:head] + chunk * chunks + data[head:], GREY, LIMITS), PIXELS)


def test_a_damaged_file_of_any_kind_is_refused_and_nothing_else() -> None:
    generator = np.random.default_rng(0)
    good = [encoded(Image.fromarray(COLOURS), form) for form in ("PNG", "JPEG", "WEBP")]
    for trial in range(600):
        data = bytearray(good[trial % 3])
        for position in generator.integers(0, len(data), 1 + trial % 8):
            data[position] = generator.integers(256)
        with contextlib.suppress(InvalidRequest):
            decode_image(bytes(data[: generator.integers(1, len(data) + 1)]), RGB, LIMITS)


def test_what_a_colour_model_must_refuse_is_not_made_8_bits_in_silence() -> None:
    deep = next(case for case in bad_images.CASES if case.name == "16 bits of colour")
    with pytest.raises(InvalidRequest, match="16 bits"):
        decode_image(deep.data, RGB, LIMITS)


def test_an_error_that_nobody_foresaw_in_a_header_is_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(InvalidRequest, match="damaged header: odd") as caught:
        decode_image(b"x", GREY, LIMITS)
    assert caught.value.reason is ErrorReason.UNDECODABLE


def test_encoded_writes_what_it_says() -> None:
    assert Image.open(io.BytesIO(encoded(Image.new("L", (2, 2)), "PNG"))).format == "PNG"
