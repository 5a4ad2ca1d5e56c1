"""How far generated images lie from the real ones of their class, which bounds how far robustness may differ.

    |Rob(h; D) - Rob(h; P)| <= mean over classes y of W(D|y, P|y)

Rob is the mean distance from an image to the nearest one that h takes for another class, W the Wasserstein distance of
the L2 norm, and classes are equally likely. Between equally many samples W is the mean length of the best pairing; few
samples of many dimensions overrate it, so hold it against that of real images and real ones.

Source: Sehwag et al. 2022 (arXiv 2104.09425), by its abstract.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from training.data import ImageSet

__all__ = ["conditional_distance", "paired_distance"]

MOST = 200
"""Images of a class: pairing them takes time by the cube."""


def paired_distance(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """W of two sets of equally many points (n, d).

    >>> paired_distance(np.array([[2.0], [0.0]]), np.array([[0.5], [1.5]]))
    0.5
    """
    lengths = cdist(left, right)
    return float(lengths[linear_sum_assignment(lengths)].mean())


def conditional_distance(real: ImageSet, generated: ImageSet) -> float | None:
    """The bound, in L2 units of images in [0, 1], over the classes that both have; None where they share none.

    Takes the first of each class, equally many of both; sets should come in random order.
    """
    found = []
    for label in np.intersect1d(real.labels, generated.labels):
        places = [np.flatnonzero(images.labels == label)[:MOST] for images in (real, generated)]
        count = min(map(len, places))
        points = [
            images.images[np.sort(where[:count])].reshape(count, -1) / 255
            for images, where in zip((real, generated), places, strict=True)
        ]
        found.append(paired_distance(*points))
    return float(np.mean(found)) if found else None
