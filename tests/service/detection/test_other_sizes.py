"""Images that have not the model's size, where the bundle resizes."""

import numpy as np
import pytest
from PIL import Image

from service.detection.graph import Resizer
from service.detection.images import ImageLimits, decode_image, header_pixels, raw_image
from service.detection.manifest import InputShape
from service.errors import ErrorReason, InvalidRequest
from tests import tiny
from tests.service import bad_images
from tests.service.bad_images import encoded
from training.resizing import resize_bytes

GREY = InputShape(height=8, width=8, channels=1)
RGB = InputShape(height=8, width=8, channels=3)
LIMITS = ImageLimits()


class Counting(Resizer):
    """Counts its images."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__(resize_bytes(shape), shape)
        self.count = 0

    def run(self, image: np.ndarray) -> np.ndarray:
        self.count = getattr(self, "count", 0) + 1  # the first ones come while it is made
        return super().run(image)


@pytest.fixture
def grey() -> Counting:
    return Counting(GREY)


@pytest.fixture
def rgb() -> Counting:
    return Counting(RGB)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (7, 8), (8, 16), (250, 330)], ids=str)
def test_a_file_and_a_tensor_of_any_size_become_the_resizers_image(size: tuple[int, int], rgb: Counting) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = Resizer(resize_bytes(RGB), RGB).run(image)
    file = encoded(Image.fromarray(image), "PNG")
    assert np.array_equal(decode_image(file, RGB, LIMITS, resizer=rgb), expected)
    assert np.array_equal(raw_image(image.tobytes(), image.shape, RGB, LIMITS, resizer=rgb), expected)
    assert rgb.count == 2


def test_an_image_of_the_models_size_passes_by(grey: Counting) -> None:
    pixels = tiny.images(1)[0]
    file = encoded(Image.fromarray(pixels[:, :, 0]), "PNG")
    assert np.array_equal(decode_image(file, GREY, LIMITS, resizer=grey), pixels)
    assert np.array_equal(raw_image(pixels.tobytes(), (8, 8, 1), GREY, LIMITS, resizer=grey), pixels)
    assert grey.count == 0


def test_an_image_that_lies_on_its_side_is_turned_first(rgb: Counting) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    wide = np.random.default_rng(0).integers(0, 256, (10, 30, 3), dtype=np.uint8)
    upright = np.ascontiguousarray(np.rot90(wide, -1))
    for form in ("PNG", "WEBP"):
        file = encoded(Image.fromarray(wide), form, lossless=True, exif=exif)
        assert np.array_equal(decode_image(file, RGB, LIMITS, resizer=rgb), rgb.run(upright))


@pytest.mark.parametrize(
    "case",
    [case for case in bad_images.CASES if case.reason is not ErrorReason.WRONG_SIZE],
    ids=lambda case: case.name,
)
def test_a_bad_image_stays_bad(case: bad_images.Case, grey: Counting) -> None:
    with pytest.raises(InvalidRequest, match=case.says) as caught:
        decode_image(case.data, GREY, LIMITS, mime_type=case.mime_type, resizer=grey)
    assert caught.value.reason is case.reason
    assert grey.count == 0


def test_colour_is_never_made_grey_nor_grey_colour(grey: Counting, rgb: Counting) -> None:
    wants_grey = r"wants grey \(1 channel\) of any height and width, got 5 x 9 RGB"
    wants_rgb = r"wants RGB \(3 channels\) of any height and width, got 5 x 9 grey"
    for mode, shape, resizer, says in (("RGB", GREY, grey, wants_grey), ("L", RGB, rgb, wants_rgb)):
        with pytest.raises(InvalidRequest, match=says) as caught:
            decode_image(encoded(Image.new(mode, (9, 5)), "PNG"), shape, LIMITS, resizer=resizer)
        assert caught.value.reason is ErrorReason.WRONG_SIZE
    with pytest.raises(InvalidRequest, match="of any height and width, got 5 x 9 x 3"):
        raw_image(bytes(135), (5, 9, 3), GREY, LIMITS, resizer=grey)
    assert grey.count == rgb.count == 0


def test_the_budgets_are_checked_before_resizing(grey: Counting) -> None:
    few = ImageLimits(max_pixels=100)
    with pytest.raises(InvalidRequest, match="at most 100 pixels, got 11 x 10 = 110") as caught:
        raw_image(bytes(110), (11, 10, 1), GREY, few, resizer=grey)
    assert caught.value.reason is ErrorReason.TOO_MANY_PIXELS
    with pytest.raises(InvalidRequest, match="at most 100 pixels, got 11 x 10 = 110"):
        decode_image(encoded(Image.new("L", (10, 11)), "PNG"), GREY, few, resizer=grey)
    assert grey.count == 0
    assert raw_image(bytes(100), (10, 10, 1), GREY, few, resizer=grey).shape == (8, 8, 1)


def test_the_header_tells_the_pixels() -> None:
    assert header_pixels(encoded(Image.new("L", (10, 11)), "PNG"), LIMITS) == 110
    assert header_pixels(b"no image", LIMITS) == 0
