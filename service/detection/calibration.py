"""Scores to p-values by split conformal calibration, and their fusion.

Source: split conformal p-values as in Bates et al. 2023 (arXiv 2104.08279), with larger = more suspicious.
"""

import io
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.detection.types import Float32s, Float64s
from service.errors import InvalidRequest

__all__ = ["TAIL_SHARE", "Calibration", "alpha_rank", "images_needed", "p_values", "rounded_up", "smooth_log_p"]

TAIL_SHARE = 0.05
"""Share of the calibration scores whose slope continues log p beyond the largest of them."""

_ARRAYS = ("detector_scores", "fused_scores")


def images_needed(alpha: float) -> int:
    """Calibration images that the smallest p-value alpha asks for.

    >>> images_needed(0.001), images_needed(0.05)
    (999, 19)
    """
    return math.ceil(1 / alpha - 1e-9) - 1


def rounded_up(alpha: float) -> str:
    """Three digits that are no less than alpha, so that who asks for them is not refused again.

    >>> rounded_up(1 / 300), rounded_up(0.005), rounded_up(1 / 3)
    ('0.00334', '0.005', '0.334')
    """
    unit = 10 ** (math.floor(math.log10(alpha)) - 2)
    return f"{math.ceil(alpha / unit - 1e-6) * unit:.3g}"


def alpha_rank(alpha: float, n: int) -> int:
    """The rank k = floor(alpha (n + 1)): an image is adversarial when 1 + #{clean >= score} <= k.

    A little more than alpha (n + 1) is floored, or 0.29 of 99 + 1 would be 28 for want of a bit.

    >>> alpha_rank(0.29, 99)
    29
    """
    return math.floor(alpha * (n + 1) + 1e-9)


def p_values(scores: Float32s | Float64s, clean: Float32s | Float64s) -> Float64s:
    """How often a clean image looks at least this suspicious.

    Args:
        scores: (N,); larger is more suspicious. One that is not finite counts as larger than all.
        clean: (n,) calibration scores in rising order, n >= 1.

    Returns:
        (N,) in [1 / (n + 1), 1].
    """
    at_least = clean.size - np.searchsorted(clean, _pessimistic(scores), side="left")
    return np.asarray((1.0 + at_least) / (clean.size + 1), dtype=np.float64)


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
    return _Curve.of(clean)(scores)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Curve:
    """`smooth_log_p` of one detector; made once, since sorting out the knots costs more than using them."""

    knots: Float64s
    log_p: Float64s
    slope: float

    @classmethod
    def of(cls, clean: Float32s | Float64s) -> "_Curve":
        knots, first = np.unique(clean.astype(np.float64), return_index=True)  # ties: their first has the largest p
        log_p = np.log((1.0 + clean.size - first) / (clean.size + 1))  # (knots,)
        return cls(knots=knots, log_p=log_p, slope=_tail_slope(knots, log_p))

    def __call__(self, scores: Float32s | Float64s) -> Float64s:
        scores = _pessimistic(scores)
        inside = np.interp(scores, self.knots, self.log_p, left=0.0)
        beyond = np.maximum(scores - self.knots[-1], 0.0)
        return np.asarray(inside - self.slope * beyond, dtype=np.float64)


def _tail_slope(knots: Float64s, log_p: Float64s) -> float:
    """How fast log p falls over the top 5 % of the calibration scores, at least 0."""
    if knots.size == 1:
        return 1.0
    start = min(int(np.searchsorted(-log_p, -math.log(TAIL_SHARE), side="left")), knots.size - 2)
    return float((log_p[start] - log_p[-1]) / (knots[-1] - knots[start]))


def _threshold(clean: Float32s, alpha: float) -> float | None:
    rank = alpha_rank(alpha, clean.size)
    return float(clean[clean.size - rank]) if rank >= 1 else None


def _pessimistic(scores: Float32s | Float64s) -> Float64s:
    return np.where(np.isfinite(scores), scores, np.inf).astype(np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Clean scores of two splits: of each detector, and of the fused statistic.

    Raises:
        ValueError: a row is empty, not finite, not rising, or of the wrong shape.
    """

    detector_scores: Float32s
    """(K, n), each row rising; first calibration split."""
    fused_scores: Float32s
    """(n2,) rising; second calibration split, which the first did not see."""

    def __post_init__(self) -> None:
        for name, rank in zip(_ARRAYS, (2, 1), strict=True):
            values = getattr(self, name)
            if values.dtype != np.float32 or values.ndim != rank or values.size == 0:
                raise ValueError(f"{name}: expected float32 of {rank} axes, got {values.dtype} {values.shape}")
            if not np.isfinite(values).all():
                raise ValueError(f"{name}: holds a number that is not finite")
            if (np.diff(values, axis=-1) < 0).any():
                raise ValueError(f"{name}: not in rising order")

    @classmethod
    def from_clean(cls, first: Float32s, second: Float32s) -> "Calibration":
        """Calibrates on the scores of two disjoint sets of clean images, (n, K) and (n2, K)."""
        detector_scores = np.sort(first.astype(np.float32), axis=0).T.copy()
        fused = cls(detector_scores=detector_scores, fused_scores=np.zeros(1, np.float32)).fuse(second)
        return cls(detector_scores=detector_scores, fused_scores=np.sort(fused))

    @cached_property
    def _curves(self) -> tuple[_Curve, ...]:
        return tuple(_Curve.of(row) for row in self.detector_scores)

    @property
    def smallest_alpha(self) -> float:
        """The smallest false-positive rate that the fused calibration supports."""
        return 1.0 / (self.fused_scores.size + 1)

    def p_values(self, scores: Float32s) -> Float64s:
        """(N, K) scores to (N, K) p-values, detector by detector."""
        return np.stack([p_values(scores[:, k], row) for k, row in enumerate(self.detector_scores)], axis=1)

    def fuse(self, scores: Float32s) -> Float32s:
        """The fused statistic of (N, K) scores: Fisher's -2 sum log p, over the smooth stand-in for log p.

        Fisher's chi-square table would be wrong, since the detectors depend on each other; `fused_p_values`
        ranks it among clean images instead. float32, because that is what the calibration keeps.
        """
        logs = [curve(scores[:, k]) for k, curve in enumerate(self._curves)]
        largest = np.finfo(np.float32).max
        return np.asarray(np.minimum(-2.0 * np.sum(logs, axis=0), largest), dtype=np.float32)

    def fused_p_values(self, scores: Float32s) -> Float64s:
        """(N, K) scores to (N,) p-values of the fused statistic."""
        return p_values(self.fuse(scores), self.fused_scores)

    def threshold(self, detector: int, alpha: float) -> float | None:
        """The score above which a detector is flagged at alpha; None when n is too small to flag any."""
        return _threshold(self.detector_scores[detector], alpha)

    def fused_threshold(self, alpha: float) -> float | None:
        """The fused statistic above which the verdict at alpha is adversarial; None when n is too small for any."""
        return _threshold(self.fused_scores, alpha)

    def check_alpha(self, alpha: float, *, largest: float) -> None:
        """Refuses an alpha that the calibration cannot support.

        Raises:
            InvalidRequest: NaN, outside (0, largest], or more calibration images are needed than there are.
        """
        n = self.fused_scores.size
        least = rounded_up(self.smallest_alpha)
        if not 0 < alpha <= largest:
            raise InvalidRequest(
                f"target false-positive rate: expected {least} to {largest:g}, got {alpha:g}",
                field="options.target_fpr",
            )
        if alpha_rank(alpha, n) < 1:
            needed = images_needed(alpha) if alpha > 1e-9 else "over a billion"
            raise InvalidRequest(
                f"target false-positive rate {alpha:g} needs {needed} calibration images, the bundle has {n}; ask for "
                f"{least} or more, or calibrate on more clean images",
                field="options.target_fpr",
            )

    def to_bytes(self) -> bytes:
        """The content of `calibration.npz`."""
        buffer = io.BytesIO()
        np.savez(buffer, detector_scores=self.detector_scores, fused_scores=self.fused_scores)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Calibration":
        """Reads the content of `calibration.npz`.

        Raises:
            ValueError: not such a file, or its numbers are not a calibration.
        """
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if sorted(arrays) != sorted(_ARRAYS):
                raise ValueError(f"expected the arrays {', '.join(_ARRAYS)}, got {', '.join(arrays)}")
            return cls(**{name: arrays[name] for name in _ARRAYS})
