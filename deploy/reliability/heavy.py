"""A bundle whose graph works longer for the same answers, so that an overload meets the graph and not the client.

A Python client sends some 3,000 calls a second from one core; a graph of 0.1 ms an image cannot be overloaded by it.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from service.detection.bundle import file_entries, load_bundle, write_bundle

__all__ = ["write_heavy"]

CHANNELS, SIDE = 64, 16
LAYERS = 40
"""Convolutions of 64 to 64 channels, 3 x 3, on 16 x 16: 9.4 million multiplications each."""


def write_heavy(path: Path, bundle: Path) -> Path:
    """Writes a bundle like another one, with idle convolutions in its graph whose result counts nothing.

    Raises:
        BundleError: the other one is damaged, or `path` is taken.
    """
    loaded = load_bundle(bundle)
    model = onnx.load_from_string(loaded.graph)
    _add_load(model, loaded.manifest.input.height * loaded.manifest.input.width * loaded.manifest.input.channels)
    names = [name for name in loaded.manifest.files if name != "model.onnx"]
    files = {name: (bundle / name).read_bytes() for name in names} | {"model.onnx": model.SerializeToString()}
    write_bundle(path, dataclasses.replace(loaded.manifest, files=file_entries(files)), files)
    return path


def _add_load(model: onnx.ModelProto, pixels: int) -> None:
    """Adds 0 times the mean of what the convolutions give to the logits."""
    graph = model.graph
    for made in graph.node:
        made.output[:] = ["light_logits" if name == "logits" else name for name in made.output]
        made.input[:] = ["light_logits" if name == "logits" else name for name in made.input]
    generator = np.random.default_rng(0)

    def constant(name: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"load_{name}"))
        return f"load_{name}"

    def node(kind: str, inputs: list[str], **attributes: Any) -> str:
        output = f"load_{len(graph.node)}"
        graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    width = CHANNELS * SIDE * SIDE
    value = node("Flatten", [node("Cast", [graph.input[0].name], to=onnx.TensorProto.FLOAT)])
    spread = generator.standard_normal((pixels, width)).astype(np.float32) / 255
    shape = np.array([-1, CHANNELS, SIDE, SIDE], np.int64)
    value = node("Reshape", [node("MatMul", [value, constant("spread", spread)]), constant("shape", shape)])
    kernel = constant("kernel", generator.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32) / 24)
    for _ in range(LAYERS):
        value = node("Relu", [node("Conv", [value, kernel], pads=[1, 1, 1, 1])])
    axes, zero = constant("axes", np.array([1, 2, 3], np.int64)), constant("zero", np.array(0, np.float32))
    nothing = node("Mul", [node("ReduceMean", [value, axes], keepdims=1), zero])
    flat = node("Reshape", [nothing, constant("column", np.array([-1, 1], np.int64))])
    graph.node.append(helper.make_node("Add", ["light_logits", flat], ["logits"]))
