"""`resize.onnx`: an image of any size to the model's, by the antialiased linear filter that Pillow has too."""

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper
from PIL import Image

from service.detection.graph import Resizer
from service.detection.manifest import InputShape
from service.detection.types import Bytes8
from service.errors import SetupError

__all__ = ["check_resizer", "resize_bytes"]

OPSET = 18
"""The first whose Resize can be antialiased."""
IR_VERSION = 8
"""That of ONNX when it had this opset."""
TOLERANCE = 2.0
"""Grey levels, in the mean over an image, that two implementations of one filter may differ by."""


def resize_bytes(shape: InputShape) -> bytes:
    """The graph as ONNX: `image` uint8 (1, H, W, C) of any H and W to `resized` uint8 (1, height, width, C).

    The filter is a triangle two output pixels wide at its base, so that every input pixel counts: an image cannot hide
    another one in the few pixels that a filter without antialiasing reads (Xiao et al. 2019, "Seeing is not
    believing").
    """
    height, width, channels = shape.height, shape.width, shape.channels
    node = helper.make_node(
        "Resize",
        ["image", "", "", "sizes"],
        ["resized"],
        mode="linear",
        antialias=1,
        coordinate_transformation_mode="half_pixel",
        exclude_outside=1,  # else the edge pixels count several times over
    )
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "H", "W", channels])],
        [helper.make_tensor_value_info("resized", TensorProto.UINT8, [1, height, width, channels])],
        [numpy_helper.from_array(np.array([1, height, width, channels], np.int64), "sizes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def check_resizer(model: bytes, shape: InputShape) -> None:
    """Compares a graph with Pillow, on noise of several sizes, and on white, which must stay as it is.

    Raises:
        BundleError: onnxruntime does not take it.
        SetupError: an image differs from Pillow's.
    """
    resizer = Resizer(model, shape)
    generator = np.random.default_rng(0)
    height, width = shape.height, shape.width
    for other in ((1, 1), (3, 200), (height + 1, width + 1), (4 * height, 4 * width), (375, 500)):
        size = (*other, shape.channels)
        noise = generator.integers(0, 256, size, dtype=np.uint8)
        for image in (noise, np.full(size, 255, np.uint8)):
            found, expected = resizer.run(image).astype(float), _by_pillow(image, shape)
            difference = float(np.abs(found - expected).mean())
            if difference > (TOLERANCE if image is noise else 0):
                raise SetupError(
                    f"resize.onnx: expected Pillow's pixels for an image of {size}, got others, {difference:.2f} grey "
                    "levels away in the mean; this version of onnxruntime resizes otherwise, set export.resize=false"
                )


def _by_pillow(image: Bytes8, shape: InputShape) -> np.ndarray:
    """Channel by channel, since Pillow knows no image of two."""
    size = (shape.width, shape.height)
    planes = [Image.fromarray(image[:, :, c]).resize(size, Image.Resampling.BILINEAR) for c in range(image.shape[2])]
    return np.stack([np.asarray(plane, float) for plane in planes], axis=2)
