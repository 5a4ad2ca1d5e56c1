"""What the bundle says of many images: the source of every published decision."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.detection.engine import Engine
from service.detection.rows import rejects
from service.detection.types import Bools, Bytes8, Float64s, Integers

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
    """Detector, or "fused" for `Calibration.suspicion`, the order of the verdict, to (N,)."""
    p_values: dict[str, Float64s]
    """The same names to (N,)."""
    ranked_in: Integers
    """(N,) the row of clean statistics that each image's was ranked in."""
    row_sizes: Integers
    """(R,) images of each row."""

    @property
    def smallest_row(self) -> int:
        """Images of the smallest row, which say how small an alpha may be."""
        return int(self.row_sizes.min())

    def rejected(self, alpha: float) -> Bools:
        """Where the verdict at alpha is adversarial, (N,)."""
        return rejects(self.p_values[FUSED], self.ranked_in, self.row_sizes, alpha)

    def rows(self, chosen: NDArray[np.int64]) -> "Decisions":
        """The answers on some of the images."""
        return Decisions(
            labels=self.labels[chosen],
            scores={name: values[chosen] for name, values in self.scores.items()},
            p_values={name: values[chosen] for name, values in self.p_values.items()},
            ranked_in=self.ranked_in[chosen],
            row_sizes=self.row_sizes,
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
        labels=measured.labels,
        scores={**scores, FUSED: calibration.suspicion(measured.outputs.scores, measured.labels)},
        p_values={**p_values, FUSED: measured.fused_p_value},
        ranked_in=calibration.rows.of_labels(measured.labels),
        row_sizes=calibration.rows.sizes,
    )


def _joined(parts: Sequence[Decisions]) -> Decisions:
    return Decisions(
        labels=np.concatenate([part.labels for part in parts]),
        scores={name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores},
        p_values={name: np.concatenate([part.p_values[name] for part in parts]) for name in parts[0].p_values},
        ranked_in=np.concatenate([part.ranked_in for part in parts]),
        row_sizes=parts[0].row_sizes,
    )
