"""How well scores part attacked from clean images, and whether a promised rate was kept; plain numpy.

Larger scores are more suspicious everywhere. A score that is not finite counts as larger than all, as it does in
`service.detection.calibration`.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.detection.calibration import alpha_rank
from service.detection.types import Float64s, Integers

__all__ = [
    "Range",
    "auroc",
    "binomial_range",
    "partial_auroc",
    "promised_range",
    "roc_points",
    "tpr_at_fpr",
]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Both ends belong to it."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def auroc(attacked: Float64s, clean: Float64s) -> float | None:
    """The chance that an attacked image scores above a clean one; a tie counts half.

    Args:
        attacked: (P,) scores.
        clean: (n,) scores.

    Returns:
        In [0, 1], exactly 0.5 for equal sets; None when either is empty.
    """
    if not attacked.size or not clean.size:
        return None
    ordered = np.sort(_finite(clean))
    below = np.searchsorted(ordered, _finite(attacked), side="left")
    not_above = np.searchsorted(ordered, _finite(attacked), side="right")
    return float((below.sum() + not_above.sum()) / (2 * attacked.size * clean.size))  # whole numbers until here


def roc_points(attacked: Float64s, clean: Float64s) -> tuple[Float64s, Float64s]:
    """False-positive and true-positive rate for every threshold, from (0, 0) to (1, 1).

    Ties become one slanted step, so that the area under the points is `auroc`.
    """
    thresholds = np.unique(_finite(np.concatenate([attacked, clean])))[::-1]
    rates = [
        (scores.size - np.searchsorted(np.sort(_finite(scores)), thresholds, side="left")) / scores.size
        for scores in (clean, attacked)
    ]
    start = np.zeros(1)
    return np.concatenate([start, rates[0]]), np.concatenate([start, rates[1]])


def partial_auroc(attacked: Float64s, clean: Float64s, largest_fpr: float) -> float | None:
    """Mean true-positive rate over false-positive rates up to `largest_fpr`; chance gives half of `largest_fpr`.

    scikit-learn's `max_fpr` rescales the same area so that chance gives 0.5; the two must not be mixed.
    """
    if not attacked.size or not clean.size:
        return None
    fpr, tpr = roc_points(attacked, clean)
    inside = fpr <= largest_fpr
    x = np.append(fpr[inside], largest_fpr)
    y = np.append(tpr[inside], np.interp(largest_fpr, fpr, tpr))
    return float(np.trapezoid(y, x) / largest_fpr)


def tpr_at_fpr(attacked: Float64s, clean: Float64s, fpr: float) -> float | None:
    """Share of attacked images above the lowest threshold that at most `fpr` of these clean images exceed.

    The threshold is chosen on the images that are judged, so this flatters a detector a little; what a bundle
    promises is measured by its verdicts.
    """
    if not attacked.size or not clean.size:
        return None
    allowed = int(np.floor(fpr * clean.size + 1e-9))  # 0.29 of 100 is 28.999999999999996
    if allowed >= clean.size:
        return 1.0
    threshold = np.sort(_finite(clean))[clean.size - 1 - allowed]
    return float((_finite(attacked) > threshold).mean())


def binomial_range(count: int, rate: float) -> Range:
    """The central 95 % of how often something of probability `rate` happens in `count` tries."""
    hits = np.arange(count + 1)
    ways = _log_ways(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = ways + _times(hits, np.log(rate)) + _times(count - hits, np.log1p(-rate))
    return _central(logs)


def promised_range(counts: Integers, alpha: float, sizes: Integers) -> Range:
    """The central 95 % of false alarms among clean images of a bundle that keeps its promise at alpha.

    Wider than `binomial_range`: the rate of one row of n calibration images follows Beta(k, n + 1 - k) with
    k = floor(alpha (n + 1)), because its images are a draw too.

    Args:
        counts: (R,) images that were ranked in each row.
        sizes: (R,) calibration images of each row.

    Source: the Beta law of split conformal prediction (Vovk 2012), mixed with the binomial of the test draw.
    """
    laws = [_alarms_of_row(int(count), alpha, int(n)) for count, n in zip(counts, sizes, strict=True)]
    with np.errstate(divide="ignore"):
        return _central(np.log(functools.reduce(np.convolve, laws)))


def _alarms_of_row(count: int, alpha: float, n: int) -> Float64s:
    """(count + 1,) how likely each number of alarms is, up to a factor."""
    rank = alpha_rank(alpha, n)
    hits = np.arange(count + 1)
    logs = _log_ways(count) + _log_beta(hits + rank, count - hits + n + 1 - rank)
    return np.asarray(np.exp(logs - logs.max()))


def _log_factorials(largest: int) -> Float64s:
    return np.concatenate([np.zeros(1), np.cumsum(np.log(np.arange(1, largest + 1)))])


def _log_ways(count: int) -> Float64s:
    logs = _log_factorials(count)
    return np.asarray(logs[count] - logs - logs[::-1])


def _log_beta(a: NDArray[np.int64], b: NDArray[np.int64]) -> Float64s:
    """Log of the Beta function of whole numbers >= 1."""
    logs = _log_factorials(int((a + b).max()))
    return np.asarray(logs[a - 1] + logs[b - 1] - logs[a + b - 1])


def _times(factor: NDArray[np.int64], log: float) -> Float64s:
    """The product with 0 * -inf = 0, which is what 0^0 = 1 asks for."""
    return np.where(factor == 0, 0.0, factor * log)


def _central(logs: Float64s) -> Range:
    """The shortest range of counts that leaves at most 2.5 % on either side."""
    shares = np.exp(logs - logs.max())
    below = np.cumsum(shares) / shares.sum()
    return Range(low=float(np.searchsorted(below, 0.025)), high=float(np.searchsorted(below, 0.975)))


def _finite(scores: Float64s) -> Float64s:
    return np.where(np.isfinite(scores), scores, np.inf)
