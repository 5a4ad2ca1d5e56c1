"""Scores to split conformal p-values, and the whole ranks that alphas are counted in.

Source: split conformal p-values as in Bates et al. 2023 (arXiv 2104.08279), with larger = more suspicious.
"""

import math

import numpy as np

from service.detection.types import Float32s, Float64s

__all__ = ["alpha_rank", "images_needed", "p_values", "pessimistic", "rounded_up"]


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
    at_least = clean.size - np.searchsorted(clean, pessimistic(scores), side="left")
    return np.asarray((1.0 + at_least) / (clean.size + 1), dtype=np.float64)


def pessimistic(scores: Float32s | Float64s) -> Float64s:
    """Scores of any shape, with those that are not finite larger than all."""
    return np.where(np.isfinite(scores), scores, np.inf).astype(np.float64)
