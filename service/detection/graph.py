"""The graphs of a bundle: checked sessions with typed arrays in and out."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from service.detection.graph_cache import GraphCache
from service.detection.manifest import InputShape
from service.detection.providers import CPU, CudaOptions, Device, bucket, buckets
from service.detection.sessions import first_line, open_on_device, open_session
from service.detection.types import Bytes8, Outputs
from service.errors import BundleError

__all__ = ["OUTPUT_NAMES", "Graph", "GraphShape", "Resizer"]

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


class Graph:
    """An ONNX graph, ready to run; safe to call from several threads.

    On a GPU each new size of a batch costs time and memory, so there batches are padded to powers of two.

    Attributes:
        provider: the execution provider that really runs.

    Raises:
        BundleError: the bytes are no graph, or its inputs or outputs are not those of `shape`.
        SetupError: CUDA or TensorRT was asked for and does not come up.
    """

    def __init__(
        self,
        model: bytes,
        shape: GraphShape,
        *,
        device: Device = "cpu",
        threads: int = 0,
        cuda: CudaOptions | None = None,
        cache: GraphCache | None = None,
    ) -> None:
        self._session = open_on_device(
            "model.onnx", model, device=device, threads=threads, cuda=cuda or CudaOptions(), cache=cache
        )
        self.provider = str(self._session.get_providers()[0])
        self._pads = self.provider != CPU
        self._check(shape)

    def run(self, images: Bytes8) -> Outputs:
        """Scores images.

        Args:
            images: (N, H, W, C), N >= 1.
        """
        count = len(images)
        if self._pads and (missing := bucket(count) - count):
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
        found = self._session.run(OUTPUT_NAMES, {"images": images})
        logits, embedding, scores = (values[:count] for values in found) if len(images) > count else found
        return Outputs(logits=logits, embedding=embedding, scores=scores)

    def warm_sizes(self, max_batch: int) -> tuple[int, ...]:
        """Sizes to run once before the first request: all that padding gives, or the ends where nothing is padded."""
        return buckets(max_batch) if self._pads else tuple(sorted({1, min(2, max_batch), max_batch}))

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
        self._session = open_session("resize.onnx", model, threads=1, keeps_memory=False)
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
                raise BundleError(f"resize.onnx: fails on an image of {size}: {first_line(error)}") from error
            if found.shape != self._size or (found != 200).any():
                raise BundleError(
                    f"resize.onnx: expected {self._size} of 200 for an image of 200 everywhere, got {found.shape} of "
                    f"{found.min()} to {found.max()}"
                )


def _compare(what: str, wanted: list[tuple[str, str, list[int]]], found: list[Any]) -> None:
    got = [(node.name, node.type, list(node.shape[1:])) for node in found]
    if got != wanted or any(isinstance(node.shape[0], int) for node in found):
        raise BundleError(f"model.onnx: {what} differ from the manifest: expected (N, ...) {wanted}, got {got}")
