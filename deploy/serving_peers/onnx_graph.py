"""The bundle's graph as both peers run it; imported in their environments, so nothing of ours but the file."""

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

__all__ = ["OUTPUTS", "OnnxGraph"]

OUTPUTS = ("logits", "scores")
"""What a caller needs to judge for himself; the embedding is computed, but not sent."""


class OnnxGraph:
    """A session with the options of our server: one thread that does not spin."""

    def __init__(self, path: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Scores (N, H, W, C) images; gives arrays of N rows by name."""
        logits, _, scores = self._session.run(("logits", "embedding", "scores"), {"images": images})
        return {"logits": logits, "scores": scores}
