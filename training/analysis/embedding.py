"""The embedding on a plane, before and after the attack."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.detection.types import Float64s
from training.evaluation.held_out import choose_images

__all__ = ["EmbeddingMap", "embedding_map", "frequent_classes"]

Integers = NDArray[np.int64]

_CLASSES = 10
_IMAGES = 250
_PERPLEXITY = 15.0


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingMap:
    """Points of clean and attacked images from one t-SNE of both; neighbours mean something, distances do not."""

    classes: tuple[int, ...]
    """Those shown."""
    labels: Integers
    """(n,)."""
    clean: Float64s
    """(n, 2), in [0, 1]."""
    attacked: Float64s
    """(n, 2), the same images attacked."""
    perplexity: float


def frequent_classes(labels: Integers, count: int = _CLASSES) -> Integers:
    """The most frequent classes among labels (N,), in rising order; of equally frequent ones the first."""
    classes, counts = np.unique(labels, return_counts=True)
    return np.sort(classes[np.argsort(-counts, kind="stable")[:count]])


def embedding_map(clean: Float64s, attacked: Float64s, labels: Integers, seed: int) -> EmbeddingMap:
    """t-SNE of at most 250 images of at most 10 classes, each clean and attacked.

    Args:
        clean: (N, D), embeddings of unit length.
        attacked: (N, D), the same images attacked.
        labels: (N,).
        seed: of the choice and of the map.

    Source: Mao et al. 2019 (arXiv 1909.00900): cosine distance, perplexity 15. Their 5,000 iterations at a learning
        rate of 20 are not needed with today's defaults.
    """
    from sklearn.manifold import TSNE  # slow to import, and only this needs it

    classes = frequent_classes(labels)
    members = np.flatnonzero(np.isin(labels, classes))
    chosen = members[choose_images(labels[members], _IMAGES, seed)]
    vectors = np.concatenate([clean[chosen], attacked[chosen]])
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    # A network without any variance left has no principal components to start from, hence the random start.
    start = "pca" if np.ptp(vectors, axis=0).max() > 0 and vectors.shape[1] >= 2 else "random"
    plane = TSNE(metric="cosine", perplexity=perplexity, init=start, random_state=seed).fit_transform(vectors)
    low, span = plane.min(axis=0), np.maximum(np.ptp(plane, axis=0), 1e-12)
    scaled = (plane.astype(np.float64) - low) / span
    return EmbeddingMap(
        classes=tuple(int(label) for label in classes),
        labels=labels[chosen],
        clean=scaled[: len(chosen)],
        attacked=scaled[len(chosen) :],
        perplexity=perplexity,
    )
