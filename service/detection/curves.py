"""A continuous stand-in for log p, of which the fused statistic is made."""

import math
from dataclasses import dataclass

import numpy as np

from service.detection.ranks import pessimistic
from service.detection.types import Float32s, Float64s

__all__ = ["TAIL_SHARE", "Curve", "smooth_log_p"]

TAIL_SHARE = 0.05
"""Share of the calibration scores whose slope continues log p beyond the largest of them."""


def smooth_log_p(scores: Float32s | Float64s, clean: Float32s | Float64s) -> Float64s:
    """A continuous stand-in for log p that goes on falling beyond the largest calibration score.

    Linear between the calibration scores; beyond the largest it continues with the mean slope of the top 5 %,
    which is an exponential tail. Ranks stop there, so that two detectors at their floor would always tie.
    It is no p-value: only what is calibrated on other images may be made of it.

    Args:
        scores: (N,); one that is not finite counts as larger than all.
        clean: (n,) calibration scores in rising order, n >= 1.

    Returns:
        (N,), at most 0.
    """
    return Curve.of(clean)(scores)


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """`smooth_log_p` of one detector; made once, since sorting out the knots costs more than using them."""

    knots: Float64s
    log_p: Float64s
    slope: float

    @classmethod
    def of(cls, clean: Float32s | Float64s) -> "Curve":
        """Takes (n,) calibration scores in rising order, n >= 1."""
        knots, first = np.unique(clean.astype(np.float64), return_index=True)  # ties: their first has the largest p
        log_p = np.log((1.0 + clean.size - first) / (clean.size + 1))  # (knots,)
        return cls(knots=knots, log_p=log_p, slope=_tail_slope(knots, log_p))

    def __call__(self, scores: Float32s | Float64s) -> Float64s:
        """(N,) scores to (N,), at most 0."""
        scores = pessimistic(scores)
        inside = np.interp(scores, self.knots, self.log_p, left=0.0)
        beyond = np.maximum(scores - self.knots[-1], 0.0)
        return np.asarray(inside - self.slope * beyond, dtype=np.float64)


def _tail_slope(knots: Float64s, log_p: Float64s) -> float:
    """How fast log p falls over the top 5 % of the calibration scores, at least 0."""
    if knots.size == 1:
        return 1.0
    start = min(int(np.searchsorted(-log_p, -math.log(TAIL_SHARE), side="left")), knots.size - 2)
    return float((log_p[start] - log_p[-1]) / (knots[-1] - knots[start]))
