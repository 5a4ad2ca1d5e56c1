"""Which fusion a bundle gets; learns its weights from perturbations that no attack made."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from service.detection.curves import smooth_log_p
from service.detection.fusion import FISHER, Fusion, FusionKind
from service.detection.types import Bytes8, Float32s, Float64s
from service.errors import SetupError
from training.attacks.rounding import from_8_bit, nearest_8_bit
from training.data.splits import Parts
from training.data.types import ImageSet
from training.forging import benign, forge

__all__ = ["fit_weights", "forged_and_harmless", "forged_surprises", "made_fusion", "surprises", "weight_images"]

MOST_IMAGES = 500
"""That weights are learned from; a handful of weights needs no more."""
ROUNDS = 4
"""Versions of each image, forged and harmless."""
BATCH = 20
"""Images of one kind of perturbation or change: small, so that all kinds occur."""
MOST_SURPRISE = 20.0
"""A larger -log p counts as this one where weights are learned, so that no handful of images decides."""

Change = Callable[..., Tensor]
Score = Callable[[Bytes8], Float32s]
"""(N, H, W, C) images to (N, K) scores."""


def made_fusion(
    kind: FusionKind, *, calibrated_on: Float32s, score: Score, images: Bytes8, eps: float, seed: int
) -> Fusion:
    """The fusion of this kind.

    Args:
        kind: only `weighted` looks at the rest.
        calibrated_on: (n, K) scores of the first calibration part, which the curves of log p are made of.
        score: of the graph.
        images: (M, H, W, C) clean, of neither calibration part.
        eps: Linf budget of the attacks that are expected.
        seed: of the perturbations.

    Raises:
        SetupError: no detector tells forged perturbations from harmless changes.
    """
    if kind != "weighted":
        return Fusion(kind=kind) if kind != "fisher" else FISHER
    return Fusion(kind=kind, weights=fit_weights(*forged_surprises(calibrated_on, score, images, eps=eps, seed=seed)))


def forged_surprises(
    calibrated_on: Float32s, score: Score, images: Bytes8, *, eps: float, seed: int
) -> tuple[Float64s, Float64s]:
    """What `fit_weights` learns from: -log p of images under forged perturbations (P, K), and of harmless ones (M, K).

    Args: as for `made_fusion`.
    """
    images = images[:MOST_IMAGES]
    views = (images, *forged_and_harmless(images, eps=eps, seed=seed))
    untouched, forged, harmless = (surprises(score(some), calibrated_on) for some in views)
    return forged, np.concatenate([np.tile(untouched, (ROUNDS, 1)), harmless])  # so that both have the same say


def weight_images(parts: Parts) -> tuple[ImageSet, ImageSet]:
    """Clean images to learn weights from, and others of the selection part to compare fusions on.

    Halves of the selection part, which neither calibration nor detectors were fitted on; whole tracks to one half.
    Where there is no selection part, weights are learned from the fit part, and there is nothing to compare on.
    """
    selection = parts.selection
    if len(selection) < 2:
        return parts.fit, selection.take(np.zeros(0, np.int64))
    units = np.arange(len(selection)) if selection.tracks is None else selection.tracks
    is_odd = np.unique(units, return_inverse=True)[1] % 2 == 1
    random = np.random.default_rng(0)  # mixes the classes, which a cut at MOST_IMAGES would else leave out
    first, second = (random.permutation(np.flatnonzero(half)) for half in (~is_odd, is_odd))
    return selection.take(first), selection.take(second)


def forged_and_harmless(images: Bytes8, *, eps: float, seed: int) -> tuple[Bytes8, Bytes8]:
    """Clean images (M, H, W, C) under forged perturbations, and harmlessly changed; of each four times as many."""
    generator = torch.Generator().manual_seed(seed)
    clean = from_8_bit(images)
    return _changed(forge, clean, generator, eps), _changed(benign, clean, generator, eps)


def _changed(change: Change, clean: Tensor, generator: torch.Generator, eps: float) -> Bytes8:
    rounds = [change(batch, generator, eps=eps) for _ in range(ROUNDS) for batch in torch.split(clean, BATCH)]
    return nearest_8_bit(torch.cat(rounds)).contiguous().numpy()


def surprises(scores: Float32s, calibrated_on: Float32s) -> Float64s:
    """-log p by the smooth stand-in: (N, K) scores, and those (n, K) of calibration images, to (N, K)."""
    columns = zip(scores.T, np.sort(calibrated_on, axis=0).T, strict=True)
    return -np.stack([smooth_log_p(column, clean) for column, clean in columns], axis=1)


def fit_weights(attacked: Float64s, clean: Float64s) -> Float64s:
    """Weights w >= 0 of sum w (-log p) that part perturbed from clean images: a logistic regression.

    Both kinds of image have equal say, however many there are. The sum of the weights is penalised by 1 / sqrt(rows):
    more than two standard deviations of the slope that a detector of mere noise gives its weight, which stays at 0.

    Args:
        attacked: (P, K) -log p of perturbed images.
        clean: (M, K) of clean ones.

    Returns:
        (K,) float64 with sum 1.

    Raises:
        SetupError: all of them are 0.
    """
    rows = np.minimum(np.concatenate([attacked, clean]), MOST_SURPRISE)
    signs = np.repeat([1.0, -1.0], [len(attacked), len(clean)])
    shares = np.repeat([0.5 / len(attacked), 0.5 / len(clean)], [len(attacked), len(clean)])
    penalty = 1 / np.sqrt(min(len(attacked), len(clean)))

    def loss(values: Float64s) -> tuple[float, Float64s]:
        weights, bias = values[:-1], values[-1]
        margins = signs * (rows @ weights + bias)
        slopes = -signs * shares * np.exp(-np.logaddexp(0.0, margins))
        value = shares @ np.logaddexp(0.0, -margins) + penalty * weights.sum()
        return float(value), np.append(slopes @ rows + penalty, slopes.sum())

    count = rows.shape[1]
    found = minimize(
        loss,
        np.append(np.full(count, 0.1), -0.1),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * count + [(None, None)],
    )
    weights = np.asarray(found.x[:-1], dtype=np.float64)
    if not weights.any():
        raise SetupError(
            "export.fusion: expected detectors that tell forged perturbations from harmless changes, got none "
            "when weights are learned; choose fisher or harmonic, or other export.detectors"
        )
    return np.asarray(weights / weights.sum())
