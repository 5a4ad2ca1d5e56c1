"""Choosing the generated images that a robust discriminator finds most real.

Each image is judged by a discriminator that has not learned from it: one half of the set, with the real images, trains
the judge of the other half, and the other way round. Of each class the same share is kept.

Source: the adaptive choice of Sehwag et al. 2022 (arXiv 2104.09425), whose details were not at hand: two judges, and
the same share of each class, are ours.
"""

import numpy as np
import torch

from service.detection.types import Bytes8, Integers
from training.config import Recipe
from training.proxy.arc import paired
from training.proxy.discriminator import Discriminating, both, scores, trained_discriminator

__all__ = ["kept_of_each_class", "realness"]


def realness(
    real: Bytes8, generated: Bytes8, eps: float, recipe: Recipe, settings: Discriminating, device: torch.device
) -> np.ndarray:
    """How real each generated image (N, H, W, C) looks under attacks of this size, (N,).

    Raises:
        SetupError: there are too few images of either kind.
    """
    found = np.empty(len(generated))
    places = np.random.default_rng(np.random.SeedSequence([settings.seed, 1])).permutation(len(generated))
    parts = np.sort(places[::2]), np.sort(places[1::2])
    for learned, judged in (parts, parts[::-1]):
        chosen, others = paired(len(real), len(learned), settings.seed)
        images = both(real[chosen], generated[learned[others]])
        model = trained_discriminator(images, eps, recipe, settings, device)
        found[judged] = _ranks(scores(model, generated[judged], eps, recipe.attack.norm, device, settings.seed).numpy())
    return found


def _ranks(values: np.ndarray) -> np.ndarray:
    """Places among all, from 0 to 1: two judges need not use one scale."""
    places = np.empty(len(values))
    places[np.argsort(values, kind="stable")] = np.arange(len(values))
    return places / max(1, len(values) - 1)


def kept_of_each_class(values: np.ndarray, labels: Integers | None, share: float) -> Integers:
    """Positions (n,), ascending, of the highest values of each class, at least one; of all where there are no labels.

    >>> kept_of_each_class(np.array([3, 1, 2, 9, 8.0]), np.array([0, 0, 0, 1, 1]), 0.5).tolist()
    [0, 2, 3]
    """
    groups = np.zeros(len(values), dtype=np.int64) if labels is None else labels
    kept = []
    for label in np.unique(groups):
        own = np.flatnonzero(groups == label)
        count = max(1, int(np.ceil(share * len(own) - 1e-9)))
        kept.append(own[np.argsort(-values[own], kind="stable")[:count]])
    return np.sort(np.concatenate(kept))
