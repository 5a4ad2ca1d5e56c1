"""95 % intervals over images: percentile bootstrap, all resamples at once.

A resample is a row of weights, how often each image was drawn. The clean and the attacked version of an image share
their weight, so that they are drawn together. What the intervals do not cover: another training run, another draw
of the calibration images.
"""

from dataclasses import dataclass

import numpy as np

from service.detection.types import Bools, Float32s, Float64s
from training.evaluation.metrics import Range, auroc

__all__ = ["RESAMPLES", "Estimate", "auroc_estimate", "draw_weights", "share_estimate"]

RESAMPLES = 2_000

_ROWS_AT_ONCE = 250  # 250 resamples of 20,000 scores are 20 MB


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure, its interval and the images that it rests on."""

    value: float | None
    """None when there is no image to compute it from."""
    interval: Range | None
    """95 %; None where a resample is pointless: no image, or one."""
    n: int
    """Images in the figure's denominator; for an AUROC the attacked ones."""


def draw_weights(images: int, seed: int, *, resamples: int = RESAMPLES) -> Float32s:
    """How often each image is drawn, (R, N); each row sums to N."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float32)


def share_estimate(hits: Bools, among: Bools, weights: Float32s) -> Estimate:
    """The share of `hits` among the images of `among`.

    Args:
        hits: (N,).
        among: (N,) the denominator; hits outside of it do not count.
        weights: (R, N) of `draw_weights`.
    """
    n = int(among.sum())
    if n == 0:
        return Estimate(value=None, interval=None, n=0)
    value = float((hits & among).sum() / n)
    with np.errstate(invalid="ignore"):  # a resample without any image of `among` says nothing
        shares = (weights @ (hits & among).astype(np.float32)) / (weights @ among.astype(np.float32))
    return Estimate(value=value, interval=_interval(shares), n=n)


def auroc_estimate(
    attacked: Float64s, clean: Float64s, weights: Float32s, *, positives: Bools, negatives: Bools
) -> Estimate:
    """AUROC of the attacked images in `positives` against the clean ones in `negatives`.

    Args:
        attacked: (N,) scores of the attacked versions.
        clean: (N,) scores of the same images before the attack.
        weights: (R, N) of `draw_weights`.
        positives: (N,).
        negatives: (N,).
    """
    value = auroc(attacked[positives], clean[negatives])
    if value is None:
        return Estimate(value=None, interval=None, n=int(positives.sum()))
    areas = weighted_aurocs(attacked[positives], clean[negatives], weights[:, positives], weights[:, negatives])  # (R,)
    return Estimate(value=value, interval=_interval(areas), n=int(positives.sum()))


def weighted_aurocs(attacked: Float64s, clean: Float64s, weights: Float32s, clean_weights: Float32s) -> Float64s:
    """AUROC of every resample.

    Args:
        attacked: (P,) scores.
        clean: (n,) scores.
        weights: (R, P).
        clean_weights: (R, n).

    Returns:
        (R,); NaN for a resample that drew no attacked or no clean image.
    """
    ranks, starts = _tie_groups(np.concatenate([attacked, clean]))
    parts = []
    for row in range(0, len(weights), _ROWS_AT_ONCE):
        rows = slice(row, row + _ROWS_AT_ONCE)
        up, down = weights[rows].astype(np.float64), clean_weights[rows].astype(np.float64)
        above = np.concatenate([up, np.zeros_like(down)], axis=1)[:, ranks]  # (rows, P + n) in order of score
        below = np.concatenate([np.zeros_like(up), down], axis=1)[:, ranks]
        above, below = np.add.reduceat(above, starts, axis=1), np.add.reduceat(below, starts, axis=1)
        lower = np.cumsum(below, axis=1) - below / 2  # clean images under each group, ties half
        with np.errstate(invalid="ignore"):
            parts.append((above * lower).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1)))
    return np.concatenate(parts)


def _tie_groups(scores: Float64s) -> tuple[np.ndarray, np.ndarray]:
    """The order of the scores, and where each group of equal ones starts in it."""
    scores = np.where(np.isfinite(scores), scores, np.inf)
    order = np.argsort(scores, kind="stable")
    return order, np.flatnonzero(np.append(True, scores[order][1:] != scores[order][:-1]))


def _interval(values: Float64s | Float32s) -> Range | None:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return Range(low=float(low), high=float(high))
