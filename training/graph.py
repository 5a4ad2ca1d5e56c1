"""The exported graph: classifier and detectors as one module from 8-bit images to logits, embedding and scores."""

import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from service.detection.graph import OUTPUT_NAMES
from service.detection.types import Bytes8, Outputs
from training.attacks.rounding import from_8_bit
from training.detectors import CleanViews, Detector, Lessons
from training.models import Classifier

__all__ = ["OPSET", "BundleGraph", "clean_views", "onnx_bytes", "torch_outputs", "without_traces"]

OPSET = 22
"""The newest that both the exporter writes and onnxruntime's CPU and CUDA providers run in full."""

BATCH = 256


class BundleGraph(nn.Module):
    """What `model.onnx` computes; casting and scaling are inside."""

    def __init__(self, model: Classifier, detectors: Sequence[Detector]) -> None:
        """Takes a trained classifier and the detectors that were fitted on it."""
        super().__init__()
        self.model = model
        self.detectors = nn.ModuleList(detectors)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores 8-bit images.

        Args:
            images: (N, H, W, C) uint8.

        Returns:
            (N, L) logits, (N, D) embedding of unit L2 norm, (N, K) scores.
        """
        return self.score(from_8_bit(images))

    def score(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of (N, C, H, W) images in [0, 1], with a gradient."""
        logits, embedding = self.model.views(images)
        scores = [detector(images, logits, embedding) for detector in self.detectors]
        return logits, embedding, torch.stack(scores, dim=1)


def clean_views(model: Classifier, images: Bytes8, labels: np.ndarray, lessons: Lessons) -> CleanViews:
    """What detectors are fitted on: (n, H, W, C) clean images as the classifier sees them, and more to learn from."""
    floats = from_8_bit(images)
    model.eval()
    with torch.inference_mode():
        views = [model.views(batch) for batch in torch.split(floats, BATCH)]
    return CleanViews(
        images=floats,
        logits=torch.cat([logits for logits, _ in views]),
        embedding=torch.cat([embedding for _, embedding in views]),
        labels=torch.from_numpy(labels),
        classifier=model,
        lessons=lessons,
    )


def torch_outputs(graph: BundleGraph, images: Bytes8) -> Outputs:
    """The outputs that torch gives for (N, H, W, C) images."""
    with torch.inference_mode():
        parts = [graph(batch) for batch in torch.split(torch.from_numpy(images), BATCH)]
    logits, embedding, scores = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return Outputs(logits=logits, embedding=embedding, scores=scores)


def onnx_bytes(graph: BundleGraph, example: Bytes8) -> bytes:
    """The graph as ONNX with a dynamic number of images.

    Args:
        example: (N, H, W, C) images to trace with, N >= 2, since a batch of 1 would be taken for a constant.
    """
    # The exporter notes that torchvision is absent, and what of itself it will deprecate: nothing a user can mend.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            graph,
            (torch.from_numpy(example),),
            path,
            input_names=["images"],
            output_names=list(OUTPUT_NAMES),
            dynamic_shapes={"images": {0: torch.export.Dim("N", min=1)}},
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
        return without_traces(path.read_bytes())


def without_traces(model: bytes) -> bytes:
    """The graph without the exporter's notes, which hold this machine's paths of every line that a node came from."""
    parsed = onnx.load_from_string(model)
    del parsed.metadata_props[:]
    graph = parsed.graph
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    return bytes(parsed.SerializeToString(deterministic=True))
