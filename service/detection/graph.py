"""The only module that names onnxruntime: a checked session with typed arrays in and out."""

import os
from dataclasses import dataclass
from typing import Any, Literal

import onnxruntime as ort

from service.detection.types import Bytes8, Outputs
from service.errors import BundleError, SetupError

__all__ = ["OUTPUT_NAMES", "Device", "Graph", "GraphShape", "cpu_quota"]

Device = Literal["cpu", "cuda", "auto"]
OUTPUT_NAMES = ("logits", "embedding", "scores")


@dataclass(frozen=True, kw_only=True)
class GraphShape:
    """What a manifest says that its graph takes and gives."""

    height: int
    width: int
    channels: int
    classes: int
    embedding: int
    detectors: int


def cpu_quota() -> int:
    """Whole processors that this process may use: the cgroup's quota, else its affinity."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no such control group: the affinity is all there is to know
    return cores


class Graph:
    """An ONNX graph, ready to run; safe to call from several threads.

    Attributes:
        provider: the execution provider that really runs.

    Raises:
        BundleError: the bytes are no graph, or its inputs or outputs are not those of `shape`.
        SetupError: CUDA was asked for and does not come up.
    """

    def __init__(self, model: bytes, shape: GraphShape, *, device: Device = "cpu", threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or cpu_quota()
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(model, options, providers=_providers(device))
        except Exception as error:
            raise BundleError(f"model.onnx: onnxruntime cannot load it: {_first_line(error)}") from error
        self.provider = str(self._session.get_providers()[0])
        if device == "cuda" and self.provider != "CUDAExecutionProvider":
            raise SetupError(f"device cuda was asked for, but onnxruntime runs on {self.provider}; use --device cpu")
        self._check(shape)

    def run(self, images: Bytes8) -> Outputs:
        """Scores images.

        Args:
            images: (N, H, W, C), N >= 1.
        """
        logits, embedding, scores = self._session.run(OUTPUT_NAMES, {"images": images})
        return Outputs(logits=logits, embedding=embedding, scores=scores)

    def _check(self, shape: GraphShape) -> None:
        wanted_input = ("images", "tensor(uint8)", [shape.height, shape.width, shape.channels])
        widths = (shape.classes, shape.embedding, shape.detectors)
        wanted = [(name, "tensor(float)", [width]) for name, width in zip(OUTPUT_NAMES, widths, strict=True)]
        _compare("inputs", [wanted_input], self._session.get_inputs())
        _compare("outputs", wanted, self._session.get_outputs())


def _compare(what: str, wanted: list[tuple[str, str, list[int]]], found: list[Any]) -> None:
    got = [(node.name, node.type, list(node.shape[1:])) for node in found]
    if got != wanted or any(isinstance(node.shape[0], int) for node in found):
        raise BundleError(f"model.onnx: {what} differ from the manifest: expected (N, ...) {wanted}, got {got}")


def _providers(device: Device) -> list[str]:
    return ["CPUExecutionProvider"] if device == "cpu" else ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
