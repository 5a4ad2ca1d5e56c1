"""`resize.onnx`: an image of any size to the model's, and graphs that must not pass for it."""

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from service.detection.graph import Resizer
from service.detection.manifest import InputShape
from service.errors import BundleError
from tests import tiny
from training.resizing import resize_bytes

GREY = InputShape(height=8, width=8, channels=1)
WIDE = InputShape(height=12, width=20, channels=3)
SIZES = [(1, 1), (1, 7), (3, 200), (200, 3), (8, 9), (11, 19), (12, 20), (64, 64), (301, 407)]


def pillows(image: np.ndarray, shape: InputShape) -> np.ndarray:
    pixels = image[:, :, 0] if shape.channels == 1 else image
    resized = Image.fromarray(pixels).resize((shape.width, shape.height), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(shape.height, shape.width, shape.channels)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shape", [GREY, WIDE], ids=["grey", "wide"])
def test_it_resizes_as_pillow_does(shape: InputShape, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, shape.channels), dtype=np.uint8)
    found = Resizer(resize_bytes(shape), shape).run(image)
    assert found.dtype == np.uint8
    assert found.shape == (shape.height, shape.width, shape.channels)
    assert np.abs(found.astype(int) - pillows(image, shape)).max() <= 2  # each rounds twice


@pytest.mark.parametrize("value", [0, 1, 200, 254, 255])
def test_one_colour_stays_as_it_is(value: int) -> None:
    resizer = Resizer(resize_bytes(WIDE), WIDE)
    for size in SIZES:
        assert (resizer.run(np.full((*size, 3), value, np.uint8)) == value).all()


def test_no_image_hides_in_the_few_pixels_that_a_careless_filter_reads() -> None:
    image = np.zeros((64, 64, 1), np.uint8)
    image[4::8, 4::8] = image[3::8, 3::8] = image[3::8, 4::8] = image[4::8, 3::8] = 255  # about each centre
    careless = np.asarray(Image.fromarray(image[:, :, 0]).resize((8, 8), Image.Resampling.NEAREST))
    assert careless.min() == 255
    assert Resizer(resize_bytes(GREY), GREY).run(image).max() < 64


def inverted() -> bytes:
    """What declares the right shapes and does something else."""
    model = onnx.load_from_string(resize_bytes(GREY))
    model.graph.node[0].output[0] = "right"
    model.graph.node.append(helper.make_node("BitwiseNot", ["right"], ["resized"]))
    return bytes(model.SerializeToString())


def of_one_size() -> bytes:
    model = onnx.load_from_string(resize_bytes(GREY))
    for place in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_value = 16
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (b"no graph", "resize.onnx: onnxruntime cannot load it"),
        (b"", "resize.onnx: onnxruntime cannot load it"),
        (tiny.graph(), r"resize.onnx: input differs from the manifest: expected \[\('image', .*got \[\('images'"),
        (resize_bytes(WIDE), r"resize.onnx: input differs .*'any', 'any', 1.*got .*'any', 'any', 3"),
        (of_one_size(), r"resize.onnx: input differs .*got .*\[1, 16, 16, 1\]"),
        (
            resize_bytes(InputShape(height=8, width=7, channels=1)),
            r"output differs .*\[1, 8, 8, 1\].*got .*\[1, 8, 7, 1\]",
        ),
        (inverted(), r"resize.onnx: expected \(8, 8, 1\) of 200 .*got \(8, 8, 1\) of 55 to 55"),
    ],
    ids=["no graph", "empty", "the model", "colour", "one size", "other shape", "inverted"],
)
def test_a_graph_that_is_no_resizer_is_refused(model: bytes, says: str) -> None:
    with pytest.raises(BundleError, match=says):
        Resizer(model, GREY)
