"""A graph whose trunk computes in float16; everything else of it stays in float32."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from service.detection.types import Bytes8
from service.errors import SetupError
from training.graph import without_traces
from training.trunk import PASSING, ROUNDING, Trunk

__all__ = ["CHECKED_IMAGES", "HEADROOM", "LARGEST", "HalfGraph", "half_graph"]

LARGEST = float(np.finfo(np.float16).max)
"""What float16 holds: 65504; beyond it is infinity."""
HEADROOM = 4.0
"""Clean images must leave so much room below `LARGEST`: attacked images, and those of others, give larger values."""
CHECKED_IMAGES = 512
"""Clean images that the trunk's values are looked at on, at most."""

_HALF = ".float16"
"""Ends the names of what is in float16; the exporter gives results no names with a full stop."""
_BATCH = 64
_SPLIT = np.array(2**13 + 1, np.float32)
"""Veltkamp's constant, which splits the 11 bits of a float16 from a float32's 24."""


@dataclass(frozen=True, kw_only=True)
class HalfGraph:
    """A graph, and how much of it is in float16."""

    model: bytes
    rounded: bytes
    """The same in float32, with every result of the trunk rounded to float16's 11 bits, as a GPU gives it. On the
    processor onnxruntime leaves out the casts between two nodes: there `model` has rounded weights, and no more."""
    convolutions: int
    half_convolutions: int
    images: int
    """That the trunk's values were looked at on."""
    largest: float
    """Of these values, without their sign."""


def half_graph(model: bytes, images: Bytes8) -> HalfGraph:
    """The trunk in float16, with casts at its borders; weights are rounded once, after they were merged in float32.

    What belongs to the trunk follows from the graph: convolutions, fully connected layers behind them, and the sums,
    batch normalisations, ReLUs and pools between. A product whose result leaves the trunk at once stays in float32:
    logits and log odds, which float16 would round to steps that tie images with each other, and the residuals of
    neighbouring pixels, which tell perturbations of one level of 256. So do means over positions, norms, distances,
    transforms, and casting and scaling of the input. The same arguments give the same bytes.

    Args:
        model: a bundle's graph in float32.
        images: (N, H, W, C), clean; none of their values in the trunk may come near the largest float16.

    Raises:
        SetupError: there is no trunk, or it has values that are too large.
    """
    parsed = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    every = sum(node.op_type == "Conv" for node in parsed.graph.node)
    trunk = Trunk(parsed.graph)
    convolutions = sum(node.op_type == "Conv" for node in trunk.nodes)
    if not convolutions:
        raise SetupError(
            "--fp16: expected a convolution with constant weights and an activation behind it, got none among "
            f"{every}; the float bundle is as fast"
        )
    some = np.ascontiguousarray(images[np.linspace(0, len(images) - 1, min(CHECKED_IMAGES, len(images))).astype(int)])
    largest = max(trunk.largest_weight(), _largest_value(parsed, trunk, some))
    if not largest * HEADROOM <= LARGEST:  # neither where it is no number
        raise SetupError(
            f"--fp16: expected weights and, on clean images, values of at most {LARGEST / HEADROOM:g} in the trunk, "
            f"{HEADROOM:g} times less than float16 holds, got {largest:.4g}; use the float bundle, or train with "
            "batch normalisation or more weight decay"
        )
    made = _halved(parsed, trunk)
    return HalfGraph(
        model=without_traces(made.SerializeToString()),
        rounded=without_traces(_as_rounded(made).SerializeToString()),
        convolutions=every,
        half_convolutions=convolutions,
        images=len(some),
        largest=largest,
    )


def _largest_value(model: onnx.ModelProto, trunk: Trunk, images: Bytes8) -> float:
    """Of all that the trunk computes for these images, in float32."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph, names = probe.graph, []
    for number, node in enumerate(one for one in trunk.nodes if one.op_type in ROUNDING):
        names.append(f"probe_{number}")
        graph.node.add(op_type="Abs", input=[node.output[0]], output=[f"probed_{number}"])
        graph.node.append(helper.make_node("ReduceMax", [f"probed_{number}"], [names[-1]], keepdims=0))
    graph.node.append(helper.make_node("Max", names, ["largest"]))
    graph.output.append(helper.make_tensor_value_info("largest", TensorProto.FLOAT, []))
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [session.run(["largest"], {"images": images[i : i + _BATCH]})[0] for i in range(0, len(images), _BATCH)]
    return float(np.max(found))


def _halved(model: onnx.ModelProto, trunk: Trunk) -> onnx.ModelProto:
    """The graph with the trunk's nodes in float16 between casts."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    del graph.node[:]
    del graph.value_info[:]  # types inside; they have changed, and nobody needs them
    entered, weights = dict[str, str](), dict[str, onnx.TensorProto]()
    chosen = {node.output[0] for node in trunk.nodes}
    for node in model.graph.node:
        if node.output[0] not in chosen:
            graph.node.append(node)
            continue
        inner = onnx.NodeProto()
        inner.CopyFrom(node)
        result = node.output[0]
        inner.output[0] = result + _HALF
        for place, name in enumerate(node.input):
            if name in trunk.constants and node.op_type != "BatchNormalization":
                inner.input[place] = _rounded_weight(weights, name, numpy_helper.to_array(trunk.constants[name]))
            elif name in chosen:
                inner.input[place] = name + _HALF
            elif name in trunk.data(node):
                if name not in entered:
                    entered[name] = name + _HALF
                    graph.node.append(helper.make_node("Cast", [name], [entered[name]], to=TensorProto.FLOAT16))
                inner.input[place] = entered[name]
        graph.node.extend(_normalised(inner, trunk, weights) if node.op_type == "BatchNormalization" else [inner])
        if any(reader.output[0] not in chosen for reader in trunk.read_by(node)):
            graph.node.append(helper.make_node("Cast", [result + _HALF], [result], to=TensorProto.FLOAT))
    read = {name for node in graph.node for name in node.input}
    kept = [one for one in model.graph.initializer if one.name in read]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *weights.values()])
    return made


def _rounded_weight(weights: dict[str, onnx.TensorProto], name: str, value: np.ndarray) -> str:
    """Keeps a constant in float16, once, and gives the name it has there."""
    half = name + _HALF
    if half not in weights:
        weights[half] = numpy_helper.from_array(np.asarray(value, np.float16), half)
    return half


def _normalised(
    node: onnx.NodeProto, trunk: Trunk, weights: dict[str, onnx.TensorProto]
) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """A batch normalisation as a product and a sum: variances may be too small for float16, factors are not."""
    scale, bias, mean, variance = (numpy_helper.to_array(trunk.constants[n]).astype(np.float64) for n in node.input[1:])
    epsilon = next((one.f for one in node.attribute if one.name == "epsilon"), 1e-5)
    result = node.output[0].removesuffix(_HALF)
    shape = (-1, *[1] * (trunk.ranks[result] - 2))  # behind N
    factor = scale / np.sqrt(variance + epsilon)
    names = [
        _rounded_weight(weights, f"{node.input[1]}_{what}", value.reshape(shape))
        for what, value in (("factor", factor), ("shift", bias - mean * factor))
    ]
    return (
        helper.make_node("Mul", [node.input[0], names[0]], [f"{result}_scaled{_HALF}"], name=f"{node.name}_scaled"),
        helper.make_node("Add", [f"{result}_scaled{_HALF}", names[1]], [node.output[0]], name=node.name),
    )


def _as_rounded(half: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of `_halved` in float32 alone, whose results are rounded by hand where float16 rounds them."""
    made = onnx.ModelProto()
    made.CopyFrom(half)
    graph = made.graph
    del graph.node[:]
    graph.initializer.append(numpy_helper.from_array(_SPLIT, "split"))
    for one in graph.initializer:
        if one.data_type == TensorProto.FLOAT16:
            one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one).astype(np.float32), one.name))
    for node in half.graph.node:
        kind = _cast_to(node)
        if kind == TensorProto.FLOAT and node.input[0].endswith(_HALF):
            graph.node.append(helper.make_node("Identity", node.input, node.output))
        elif kind == TensorProto.FLOAT16:
            graph.node.extend(_rounding(node.input[0], node.output[0]))
        elif node.output[0].endswith(_HALF) and node.op_type not in PASSING:
            exact = onnx.NodeProto()
            exact.CopyFrom(node)
            exact.output[0] = f"{node.output[0]}_exact"
            graph.node.append(exact)
            graph.node.extend(_rounding(exact.output[0], node.output[0]))
        else:
            graph.node.append(node)
    return made


def _cast_to(node: onnx.NodeProto) -> int | None:
    """The type that a cast gives; None of other nodes."""
    return next((one.i for one in node.attribute if one.name == "to"), None) if node.op_type == "Cast" else None


def _rounding(name: str, result: str) -> Iterable[onnx.NodeProto]:
    """To 11 bits: t - (t - x) with t = (2^13 + 1) x. Source: Dekker 1971, after Veltkamp."""
    return (
        helper.make_node("Mul", [name, "split"], [f"{result}_times"]),
        helper.make_node("Sub", [f"{result}_times", name], [f"{result}_rest"]),
        helper.make_node("Sub", [f"{result}_times", f"{result}_rest"], [result]),
    )
