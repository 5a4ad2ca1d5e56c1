"""The only module that names onnxruntime: checked sessions with typed arrays in and out."""

import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from service.detection.manifest import InputShape
from service.detection.types import Bytes8, Outputs
from service.errors import BundleError, SetupError

__all__ = ["OUTPUT_NAMES", "Device", "Graph", "GraphShape", "Resizer", "cpu_quota"]

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
        self._session = _session("model.onnx", model, _options(threads or cpu_quota()), device)
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


class Resizer:
    """The graph of `resize.onnx`, ready to run: an image of any size to the model's; safe to call from several threads.

    It always runs on the processor, in the thread that calls it.

    Raises:
        BundleError: the bytes are no graph, its input or output is not that of `shape`, or it does not keep an image of
            one colour as it is.
    """

    def __init__(self, model: bytes, shape: InputShape) -> None:
        options = _options(1)
        # Both keep memory for the next image, which is of another size.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        self._session = _session("resize.onnx", model, options, "cpu")
        self._size = (shape.height, shape.width, shape.channels)
        self._check_declared()
        self._check_one_colour()

    def run(self, image: Bytes8) -> Bytes8:
        """Stretches an image to the model's height and width.

        Args:
            image: (H, W, C) of any height and width, with the model's channels.

        Returns:
            (height, width, channels) of the model.
        """
        resized: Bytes8 = self._session.run(["resized"], {"image": image[None]})[0][0]
        return resized

    def _check_declared(self) -> None:
        height, width, channels = self._size
        wanted = (
            [("image", "tensor(uint8)", [1, "any", "any", channels])],
            [("resized", "tensor(uint8)", [1, height, width, channels])],
        )
        for what, entries, nodes in zip(
            ("input", "output"), wanted, (self._session.get_inputs(), self._session.get_outputs()), strict=True
        ):
            got = [(node.name, node.type, [n if isinstance(n, int) else "any" for n in node.shape]) for node in nodes]
            if got != entries:
                raise BundleError(f"resize.onnx: {what} differs from the manifest: expected {entries}, got {got}")

    def _check_one_colour(self) -> None:
        """What a graph declares is not always what it does."""
        height, width, channels = self._size
        for size in ((1, 1, channels), (2 * height + 1, 3 * width + 2, channels)):
            try:
                found = self.run(np.full(size, 200, np.uint8))
            except Exception as error:
                raise BundleError(f"resize.onnx: fails on an image of {size}: {_first_line(error)}") from error
            if found.shape != self._size or (found != 200).any():
                raise BundleError(
                    f"resize.onnx: expected {self._size} of 200 for an image of 200 everywhere, got {found.shape} of "
                    f"{found.min()} to {found.max()}"
                )


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _session(file: str, model: bytes, options: ort.SessionOptions, device: Device) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, options, providers=_providers(device))
    except Exception as error:
        raise BundleError(f"{file}: onnxruntime cannot load it: {_first_line(error)}") from error


def _compare(what: str, wanted: list[tuple[str, str, list[int]]], found: list[Any]) -> None:
    got = [(node.name, node.type, list(node.shape[1:])) for node in found]
    if got != wanted or any(isinstance(node.shape[0], int) for node in found):
        raise BundleError(f"model.onnx: {what} differ from the manifest: expected (N, ...) {wanted}, got {got}")


def _providers(device: Device) -> list[str]:
    return ["CPUExecutionProvider"] if device == "cpu" else ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
