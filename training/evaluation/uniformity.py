"""Whether the p-values of clean test images are uniform: drift between calibration and test shows without labels."""

from math import sqrt

import numpy as np

from service.detection.calibration import Calibration
from service.detection.types import Float32s, Float64s
from training.evaluation.decisions import FUSED, Decisions
from training.evaluation.records import Uniformity

__all__ = ["bound", "distance", "judge_uniformity", "mid_ranks"]


def mid_ranks(scores: Float64s, calibration: Float32s) -> Float64s:
    """(#{c > s} + #{c = s} / 2) / (n + 1) of each score, (m,): p-values whose ties count half.

    Args:
        scores: (m,); one that is not finite counts as larger than all.
        calibration: (n,) in rising order.
    """
    finite = np.where(np.isfinite(scores), scores, np.inf).astype(np.float32)  # as the calibration keeps them
    below, up_to = (np.searchsorted(calibration, finite, side=side) for side in ("left", "right"))
    n = calibration.size
    return np.asarray((n - up_to + (up_to - below) / 2) / (n + 1), dtype=np.float64)


def distance(ranks: Float64s) -> float:
    """The largest |F(u) - u| over u, F being the empirical distribution of (m,) values in [0, 1], m >= 1."""
    rising, m = np.sort(ranks), len(ranks)
    steps = np.arange(m + 1) / m
    return float(max((steps[1:] - rising).max(), (rising - steps[:-1]).max()))


def bound(n: int, m: int) -> float:
    """1.95 sqrt((n + m) / (n m)), which two samples of one distribution exceed once in a thousand times.

    Source: the asymptotic two-sample test of Smirnov. The calibration is a sample too, so the table for one sample
    would be too strict.

    >>> round(bound(2000, 1000), 3)
    0.076
    """
    return 1.95 * sqrt((n + m) / (n * m))


def judge_uniformity(clean: Decisions, calibration: Calibration) -> tuple[Uniformity, ...]:
    """Of each detector and of the fused statistic on clean test images."""
    samples = [*calibration.detector_scores, calibration.fused_scores]
    names = [*(name for name in clean.scores if name != FUSED), FUSED]
    found = []
    for name, sample in zip(names, samples, strict=True):
        if name == FUSED and calibration.by_class is not None:
            # Ranked row by row: the statistic itself is not comparable between them.
            ranks = clean.p_values[FUSED] - 0.5 / (clean.row_sizes[clean.ranked_in] + 1)
        else:
            ranks = mid_ranks(clean.scores[name], sample)
        size, limit = distance(ranks), bound(sample.size, len(clean.labels))
        found.append(
            Uniformity(
                detector=name,
                images=len(clean.labels),
                calibration_images=sample.size,
                distance=size,
                bound=limit,
                is_beyond=size > limit,
            )
        )
    return tuple(found)
