"""ARC: how well a robust discriminator tells generated images from real ones, over the size of the attack.

    a(eps) = accuracy, under attacks of size eps, of a discriminator trained against attacks of size eps
    ARC    = integral of max(0, a(eps) - 0.5) over eps, by trapezoids; lower is the better proxy

Two sets that only look different to a fragile network cannot be told apart once it is attacked, and robustness carries
over between them; what a robust network tells apart is far from the real images.

Source: Sehwag et al. 2022 (arXiv 2104.09425) for the idea; that the area is this one is our reading of it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from service.detection.types import Bytes8, Integers
from service.errors import SetupError
from training.checks import require
from training.config import Recipe
from training.data import ImageSet
from training.proxy.discriminator import Discriminating, both, robust_accuracy, trained_discriminator

__all__ = ["Curve", "area", "curve", "halves", "paired"]

LEAST = 40
"""Images of either kind: fewer tell nothing."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Robust accuracy of discriminators over the size of the attack."""

    eps: tuple[float, ...]
    accuracies: tuple[float, ...]

    @property
    def arc(self) -> float:
        """The area; 0 for sets that nothing tells apart, at most half of the largest eps."""
        return area(self.eps, self.accuracies)


def area(eps: Sequence[float], accuracies: Sequence[float]) -> float:
    """The integral of max(0, a - 0.5) over eps.

    >>> area([0.0, 0.1, 0.3], [1.0, 0.7, 0.4])
    0.055

    Raises:
        SetupError: fewer than two sizes, or such that do not rise from 0.
    """
    rises = len(eps) > 1 and eps[0] == 0 and all(left < right for left, right in itertools.pairwise(eps))
    require(rises and len(eps) == len(accuracies), "--eps", "two sizes or more, rising from 0", list(eps))
    heights = np.maximum(0, np.asarray(accuracies) - 0.5)
    return round(float(np.trapezoid(heights, np.asarray(eps))), 12)


def curve(
    real: Bytes8,
    generated: Bytes8,
    eps: Sequence[float],
    recipe: Recipe,
    settings: Discriminating,
    device: torch.device,
) -> Curve:
    """Trains a discriminator for each size on one half of the images, and measures it on the other.

    Args:
        real: (N, H, W, C).
        generated: (M, H, W, C); of the larger set as many are taken as the other one has.
        eps: sizes of attacks in the recipe's norm, rising from 0.
        recipe: see trained_discriminator.
        settings: see there.
        device: where it computes.

    Raises:
        SetupError: too few images, or sizes that do not rise from 0.
    """
    area(eps, [0.0] * len(eps))  # refuses wrong sizes before anything is trained
    learned, held_out = halves(real, generated, settings.seed)
    found = []
    for size in eps:
        model = trained_discriminator(learned, size, recipe, settings, device)
        found.append(robust_accuracy(model, held_out, size, recipe.attack.norm, device, settings.seed))
    return Curve(eps=tuple(eps), accuracies=tuple(found))


def halves(real: Bytes8, generated: Bytes8, seed: int) -> tuple[ImageSet, ImageSet]:
    """Two sets, each of equally many real and generated images; no image is in both.

    Raises:
        SetupError: there are too few.
    """
    chosen, others = paired(len(real), len(generated), seed)
    first, second = (both(real[chosen[i::2]], generated[others[i::2]]) for i in range(2))
    return first, second


def paired(real: int, generated: int, seed: int) -> tuple[Integers, Integers]:
    """Equally many positions of real and of generated images, in ascending order: mapped files are read so.

    Raises:
        SetupError: there are too few of either.
    """
    count = min(real, generated)
    if count < LEAST:
        raise SetupError(
            f"a discriminator: expected {LEAST} images or more of each kind, got {real} real and {generated} generated "
            "ones"
        )
    random = np.random.default_rng(np.random.SeedSequence([seed]))
    first, second = (np.sort(random.permutation(images)[:count]) for images in (real, generated))
    return first, second
