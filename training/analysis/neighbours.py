"""What an attacked image lies next to in the embedding."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.detection.types import Float64s

__all__ = ["Neighbours", "Retrieval", "nearest", "neighbours", "recall_at_1"]

Integers = NDArray[np.int64]

_QUERIES = 6
_NEAREST = 4


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Share of queries whose nearest clean test image, itself left out, is of the true class."""

    clean: float | None
    attacked: float | None
    """The query attacked, what it is compared with clean."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """Some attacked queries and the clean images of the run's `fit` part that lie nearest."""

    recall_at_1: Retrieval
    queries: Integers
    """(q,) positions among the analysed images."""
    fooling: bool
    """Whether the queries fool; False when no image does."""
    nearest: Integers
    """(q, n) positions in the `fit` part, nearest first."""


def nearest(queries: Float64s, gallery: Float64s, count: int) -> Integers:
    """Positions (Q, count) of the gallery's most similar by cosine, the most similar first.

    Args:
        queries: (Q, D) of unit length.
        gallery: (G, D) of unit length, G >= count.
        count: how many of them.
    """
    return np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :count]


def recall_at_1(queries: Float64s, gallery: Float64s, labels: Integers, groups: Integers | None = None) -> float | None:
    """Share of queries whose most similar image of the gallery has their class.

    Args:
        queries: (N, D) of unit length; query i is gallery image i, perhaps attacked.
        gallery: (N, D) of unit length, clean.
        labels: (N,) of both.
        groups: (N,) numbers of tracks; a query does not find images of its own. Without them it does not find itself.

    Returns:
        Over the queries that have something to find; None when none has.
    """
    own = np.arange(len(labels)) if groups is None else groups
    similar = np.where(own[:, None] == own, -np.inf, queries @ gallery.T)
    found = np.isfinite(similar).any(axis=1)
    if not found.any():
        return None
    right = labels[similar.argmax(axis=1)] == labels
    return float(right[found].mean())


def neighbours(
    *,
    clean: Float64s,
    attacked: Float64s,
    labels: Integers,
    groups: Integers | None,
    fools: NDArray[np.bool_],
    gallery: Float64s,
    seed: int,
) -> Neighbours:
    """R@1 among the test images, and examples from the fit part.

    Args:
        clean: (N, D), embeddings of unit length.
        attacked: (N, D), the same images attacked.
        labels: (N,).
        groups: (N,) or None, see `recall_at_1`.
        fools: (N,), whether the attacked image is read wrongly and the clean one rightly.
        gallery: (G, D), embeddings of the fit part.
        seed: of the choice of examples.

    Source: the nearest-neighbour figure of Mao et al. 2019 (arXiv 1909.00900).
    """
    candidates = np.flatnonzero(fools) if fools.any() else np.arange(len(labels))
    queries = np.sort(np.random.default_rng(seed).permutation(candidates)[:_QUERIES])
    return Neighbours(
        recall_at_1=Retrieval(
            clean=recall_at_1(clean, clean, labels, groups), attacked=recall_at_1(attacked, clean, labels, groups)
        ),
        queries=queries,
        fooling=bool(fools.any()),
        nearest=nearest(attacked[queries], gallery, min(_NEAREST, len(gallery))),
    )
