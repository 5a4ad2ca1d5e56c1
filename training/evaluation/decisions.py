"""What the bundle says of many images: the source of every published decision."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.detection.engine import Engine
from service.detection.types import Bytes8, Float64s
from training.evaluation.metrics import Bools, fires

__all__ = ["FUSED", "Decisions", "decide"]

FUSED = "fused"
"""Name of the fused statistic beside the detectors' names."""

_BATCH = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Decisions:
    """The bundle's answers on N images."""

    labels: NDArray[np.int64]
    """(N,)."""
    scores: dict[str, Float64s]
    """Detector, or "fused" for the statistic behind the verdict, to (N,)."""
    p_values: dict[str, Float64s]
    """The same names to (N,)."""
    fused_calibration_images: int

    def rejected(self, alpha: float) -> Bools:
        """Where the verdict at alpha is adversarial, (N,)."""
        return fires(self.p_values[FUSED], self.fused_calibration_images, alpha)

    def rows(self, chosen: NDArray[np.int64]) -> "Decisions":
        """The answers on some of the images."""
        return Decisions(
            labels=self.labels[chosen],
            scores={name: values[chosen] for name, values in self.scores.items()},
            p_values={name: values[chosen] for name, values in self.p_values.items()},
            fused_calibration_images=self.fused_calibration_images,
        )


def decide(engine: Engine, images: Bytes8) -> Decisions:
    """Runs the bundle on (N, H, W, C) images in batches."""
    return _joined([_decide_batch(engine, images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)])


def _decide_batch(engine: Engine, images: Bytes8) -> Decisions:
    measured = engine.measure(np.ascontiguousarray(images))
    calibration = engine.bundle.calibration
    names = [entry.name for entry in engine.bundle.manifest.detectors]
    scores = {name: measured.outputs.scores[:, k].astype(np.float64) for k, name in enumerate(names)}
    p_values = {name: measured.p_values[:, k] for k, name in enumerate(names)}
    return Decisions(
        labels=measured.probabilities.argmax(axis=1),
        scores={**scores, FUSED: calibration.fuse(measured.outputs.scores).astype(np.float64)},
        p_values={**p_values, FUSED: measured.fused_p_value},
        fused_calibration_images=calibration.fused_scores.size,
    )


def _joined(parts: Sequence[Decisions]) -> Decisions:
    return Decisions(
        labels=np.concatenate([part.labels for part in parts]),
        scores={name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores},
        p_values={name: np.concatenate([part.p_values[name] for part in parts]) for name in parts[0].p_values},
        fused_calibration_images=parts[0].fused_calibration_images,
    )
