"""Gaussians of the pixels of each class: with the main directions of its images, or with each pixel alone.

pca-gaussian     x = mean + sum_k z_k s_k v_k,  z normal, over the principal components v_k with deviations s_k
pixel-gaussian   x_i = mean_i + z_i s_i         for each pixel i: a bad generator, by which a ranking shows itself
"""

import numpy as np
from numpy.typing import NDArray

from service.detection.types import Bytes8, Integers
from service.errors import SetupError
from training.data import ImageSet
from training.generators.protocol import Learning

__all__ = ["PcaGaussian", "PixelGaussian"]

Floats = NDArray[np.float64]
VARIANCE = 0.95
"""Share of a class's variance that the components keep; the rest of few images is mostly noise."""


class _ByClass:
    """A mean and a few directions for each class, which draws of a normal add up."""

    def __init__(self, images: ImageSet, classes: int, _learning: Learning) -> None:
        self._shape = images.images.shape[1:]
        self._means, self._directions = [], []
        for label in range(classes):
            own = images.images[images.labels == label].reshape(-1, int(np.prod(self._shape))) / 255
            if len(own) < 2:
                raise SetupError(f"a generator: expected two images or more of class {label}, got {len(own)}")
            self._means.append(own.mean(axis=0))
            self._directions.append(self._spread(own - own.mean(axis=0)))

    def _spread(self, centred: Floats) -> Floats:
        """Directions (k, d) times their deviations, of centred images (n, d)."""
        raise NotImplementedError

    def _drawn(self, count: int, directions: Floats, random: np.random.Generator) -> Floats:
        """(count, d) deviations from the mean."""
        return random.standard_normal((count, len(directions))) @ directions

    def sample(self, labels: Integers, random: np.random.Generator) -> Bytes8:
        """See Generator."""
        images = np.empty((len(labels), *self._shape), np.uint8)
        for label in np.unique(labels):
            mine = labels == label
            drawn = self._means[label] + self._drawn(int(mine.sum()), self._directions[label], random)
            images[mine] = np.rint(255 * drawn.clip(0, 1)).astype(np.uint8).reshape(-1, *self._shape)
        return images


class PcaGaussian(_ByClass):
    """A normal distribution over the main directions of each class."""

    def _spread(self, centred: Floats) -> Floats:
        _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
        deviations = sizes / np.sqrt(len(centred) - 1)
        explained = np.cumsum(deviations**2) / max(np.sum(deviations**2), np.finfo(float).tiny)
        kept = int(np.searchsorted(explained, VARIANCE)) + 1
        spread: Floats = deviations[:kept, None] * directions[:kept]
        return spread


class PixelGaussian(_ByClass):
    """A normal distribution of each pixel of each class, independent of all others."""

    def _spread(self, centred: Floats) -> Floats:
        spread: Floats = np.sqrt(np.sum(centred**2, axis=0, keepdims=True) / (len(centred) - 1))
        return spread

    def _drawn(self, count: int, directions: Floats, random: np.random.Generator) -> Floats:
        return random.standard_normal((count, directions.shape[1])) * directions
