"""Held-out images, and a choice of them that keeps the classes in proportion."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.detection.types import Bytes8

__all__ = ["HeldOut", "choose_images"]


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """The held-out images, and which of them are attacked."""

    images: Bytes8
    """(M, H, W, C)."""
    labels: NDArray[np.int64]
    """(M,)."""
    chosen: NDArray[np.int64]
    """(N,) positions of those that are attacked."""
    in_tracks: bool = False
    """Whether several images show the same object, so that they are not independent."""


def choose_images(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Positions of `count` images with the classes in proportion, in rising order; all when there are no more."""
    if count >= len(labels):
        return np.arange(len(labels))
    generator = np.random.default_rng(seed)
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        places[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return np.sort(np.argsort(places, kind="stable")[:count])
