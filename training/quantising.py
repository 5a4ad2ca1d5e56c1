"""A graph with its large convolutions in 8-bit integers; everything else of it stays in float32."""

import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quant_pre_process, quantize_static

from service.detection.types import Bytes8
from service.errors import SetupError
from training.graph import without_traces

__all__ = ["CALIBRATION_IMAGES", "QuantisedGraph", "quantised_graph"]

CALIBRATION_IMAGES = 512
"""Clean images that the ranges of activations are taken from, at most."""

LEAST_TERMS = 32
"""Products in each sum of a convolution, at least: where there are fewer, gathering them costs more than 8 bits save.

So the first convolution of grey or colour images stays in float32, and with it the residuals of neighbouring pixels,
which tell perturbations of one level of 256 and would be lost in 8 bits."""

CHANNELS = 4
"""Input channels of onnxruntime's fast 8-bit convolution come in fours; with any other number it takes a slower way."""

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class QuantisedGraph:
    """A graph, and how much of it is in 8 bits."""

    model: bytes
    convolutions: int
    quantised_convolutions: int
    images: int
    """That the ranges were taken from."""


def quantised_graph(model: bytes, images: Bytes8, *, reduce_range: bool = False) -> QuantisedGraph:
    """Static quantisation: unsigned activations, signed weights with a scale for each output channel, QDQ format.

    What is chosen follows from the graph: convolutions with constant weights, of one group and enough terms, and the
    sums and ReLUs that read nothing else. The fully connected layers, all arithmetic of the detectors, and casting and
    scaling of the input stay in float32. The same arguments give the same bytes.

    Args:
        model: a bundle's graph in float32.
        images: (N, H, W, C), clean; ranges are the smallest and largest values that they give.
        reduce_range: weights of 7 bits, for processors whose 8-bit sums saturate (x86-64 without VNNI).

    Raises:
        SetupError: no convolution is large enough to gain by it.
    """
    chosen = images[np.linspace(0, len(images) - 1, min(CALIBRATION_IMAGES, len(images))).astype(int)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore")  # the library divides by the range of tensors that are not quantised
        source, prepared, made = (Path(folder) / name for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        source.write_bytes(model)
        # Its symbolic shapes fail on the detectors' arithmetic; onnx's own inference gives all that is needed here.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        parsed = onnx.load(prepared)
        nodes = _chosen(parsed)
        every = [node.name for node in parsed.graph.node if node.op_type == "Conv"]
        convolutions = len(set(nodes) & set(every))
        if not convolutions:
            raise SetupError(
                f"--int8: expected a convolution whose sums have {LEAST_TERMS} terms or more, got none among "
                f"{len(every)}; the float bundle is as fast"
            )
        quantize_static(
            prepared,
            made,
            _Images(chosen),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Relu", "Add"],
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        widened = _in_fours(onnx.load(made))
    domains = {node.domain for node in widened.graph.node}
    for entry in [entry for entry in widened.opset_import if entry.domain not in domains]:
        widened.opset_import.remove(entry)  # what onnxruntime knows itself, and not every reader of the file does
    return QuantisedGraph(
        model=without_traces(widened.SerializeToString()),
        convolutions=len(every),
        quantised_convolutions=convolutions,
        images=len(chosen),
    )


class _Images(CalibrationDataReader):  # type: ignore[misc]  # the library is not typed
    """Feeds the library with batches."""

    def __init__(self, images: Bytes8) -> None:
        self._batches: Iterator[Mapping[str, Bytes8]] = iter(
            [{"images": np.ascontiguousarray(images[i : i + _BATCH])} for i in range(0, len(images), _BATCH)]
        )

    def get_next(self) -> Mapping[str, Bytes8] | None:
        """The next batch; None behind the last."""
        return next(self._batches, None)


def _chosen(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that become integer ones."""
    weights = {one.name: one for one in model.graph.initializer}
    names, quantised = [], set[str]()  # outputs of those chosen so far; nodes are in order of computation
    for node in model.graph.node:
        if node.op_type == "Conv":
            is_chosen = node.input[1] in weights and _terms(node, weights[node.input[1]]) >= LEAST_TERMS
        else:
            is_chosen = node.op_type in ("Relu", "Add") and quantised.issuperset(node.input)
        if is_chosen:
            names.append(node.name)
            quantised.update(node.output)
    return names


def _terms(node: onnx.NodeProto, weights: onnx.TensorProto) -> int:
    """Products in each sum; 0 where groups of channels make many small sums."""
    groups = next((one.i for one in node.attribute if one.name == "group"), 1)
    return math.prod(weights.dims[1:]) if groups == 1 else 0


def _in_fours(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives quantised convolutions input channels in fours: more of them, with weights 0, which change no answer."""
    graph = model.graph
    tensors = {one.name: one for one in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    nodes, widened = [], dict[str, int]()
    for node in graph.node:
        if node.op_type == "Conv" and _is_quantised(node, makers):
            images, weights = makers[node.input[0]], makers[node.input[1]].input[0]
            if weights not in widened:  # several convolutions may share their weights
                widened[weights] = _widen(tensors[weights])
            if widened[weights]:
                pads = np.array([0, 0, 0, 0, 0, widened[weights], 0, 0], np.int64)  # before and after, of N, C, H, W
                name = f"{node.name}_in_fours"
                graph.initializer.append(numpy_helper.from_array(pads, f"{name}_pads"))
                nodes += [
                    helper.make_node("Pad", [images.input[0], f"{name}_pads", images.input[2]], [f"{name}_padded"]),
                    helper.make_node("DequantizeLinear", [f"{name}_padded", *images.input[1:]], [name]),
                ]
                node.input[0] = name
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.value_info[:]  # shapes inside; they have changed, and nobody needs them
    return model


def _is_quantised(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> bool:
    return all(name in makers and makers[name].op_type == "DequantizeLinear" for name in node.input[:2])


def _widen(weights: onnx.TensorProto) -> int:
    """Adds input channels of weight 0 up to a multiple of four, and tells how many."""
    values = numpy_helper.to_array(weights)  # (outputs, inputs, height, width)
    more = -values.shape[1] % CHANNELS
    if more:
        wider = np.pad(values, ((0, 0), (0, more), (0, 0), (0, 0)))
        weights.CopyFrom(numpy_helper.from_array(wider, weights.name))
    return int(more)
