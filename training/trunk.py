"""Which part of a graph is the trunk: the networks between the scaled image and what is read off their features."""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

__all__ = ["PASSING", "ROUNDING", "Trunk"]

_PRODUCTS = frozenset({"Conv", "Gemm"})
_SUMS = frozenset({"Add", "BatchNormalization", "LeakyRelu"})
ROUNDING = _PRODUCTS | _SUMS
"""Operators whose results are rounded to the precision that they compute in."""
PASSING = frozenset({"Relu", "MaxPool", "Reshape", "Flatten", "Transpose"})
"""Those that give what they were given, or 0."""


class Trunk:
    """The nodes of a graph that may compute in less precision, in order of computation.

    Attributes:
        nodes: what they are.
        constants: the graph's constants in float32, by name.
        ranks: dimensions of each result, by name, where the graph tells its shape.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        """Looks for them; takes a graph with the shapes of its results."""
        self.constants = {one.name: one for one in graph.initializer if one.data_type == TensorProto.FLOAT}
        self.ranks = {one.name: len(one.type.tensor_type.shape.dim) for one in graph.value_info}
        self._fixed = {one.name for one in graph.initializer}
        self._results = {one.name for one in graph.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        left_out = set[str]()
        while True:
            self.nodes = self._grown(graph.node, left_out)
            self.outputs = {node.output[0] for node in self.nodes}
            leaving = {
                node.output[0]
                for node in self.nodes
                if node.op_type in _PRODUCTS and any(one.output[0] not in self.outputs for one in self.read_by(node))
            }
            if not leaving:
                break
            left_out |= leaving

    def read_by(self, node: onnx.NodeProto) -> Sequence[onnx.NodeProto]:
        """The nodes that read a node's result."""
        return self.readers.get(node.output[0], ())

    def data(self, node: onnx.NodeProto) -> list[str]:
        """A node's inputs that are no constants."""
        return [name for name in node.input if name and name not in self._fixed]

    def weights(self, node: onnx.NodeProto) -> list[str]:
        """A node's inputs that are constants in float32."""
        return [name for name in node.input if name in self.constants]

    def largest_weight(self) -> float:
        """Of all constants, without its sign."""
        values = (numpy_helper.to_array(self.constants[name]) for node in self.nodes for name in self.weights(node))
        return max(float(np.abs(value).max(initial=0.0)) for value in values)

    def _grown(self, nodes: Iterable[onnx.NodeProto], left_out: set[str]) -> list[onnx.NodeProto]:
        """Those that convolutions lead to; nodes are in order of computation."""
        found, inside = [], set[str]()
        for node in nodes:
            if len(node.output) > 1 or node.output[0] in left_out | self._results:
                continue
            data = self.data(node)
            reads_inside = len(data) > 0 and inside.issuperset(data)
            is_convolution = node.op_type == "Conv" and len(data) == 1
            if is_convolution or (reads_inside and node.op_type in ROUNDING | PASSING):
                found.append(node)
                inside.add(node.output[0])
        return found
