"""How tightly classes lie together in the embedding, and how far apart from each other."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from service.detection.types import Float64s
from training.evaluation import geometry

__all__ = ["MARGIN", "ClassDistances", "Distances", "class_distances", "distance"]

MARGIN = 0.03
"""Of the triplets that are counted: TLA's on CIFAR-10, whatever margin a run was trained with."""


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Of anchors to other, clean images; None where there are no such pairs."""

    within: float | None
    """Mean over pairs of one class."""
    between: float | None
    """Mean over pairs of two classes."""
    margin_satisfied: float | None
    """Share of triplets with D(anchor, positive) + MARGIN <= D(anchor, negative)."""


@dataclass(frozen=True, kw_only=True)
class ClassDistances:
    """With clean and with attacked anchors."""

    margin: float
    clean: Distances
    attacked: Distances


def distance(left: Float64s, right: Float64s) -> Float64s:
    """D = 1 - |cos|, (N, M), of embeddings (N, D) and (M, D) of unit length; antiparallel counts as close.

    Source: Mao et al. 2019 (arXiv 1909.00900).
    """
    return np.asarray(1 - np.abs(left @ right.T))


def class_distances(clean: Float64s, attacked: Float64s, labels: NDArray[np.int64]) -> ClassDistances:
    """Distances of clean and of attacked anchors to the other images, clean.

    A triplet is an anchor, any other image of its class and the nearest image of another class; all are counted.

    Args:
        clean: (N, D), embeddings of unit length.
        attacked: (N, D), the same images attacked.
        labels: (N,).
    """
    return ClassDistances(margin=MARGIN, clean=_from(clean, clean, labels), attacked=_from(attacked, clean, labels))


def _from(anchors: Float64s, others: Float64s, labels: NDArray[np.int64]) -> Distances:
    within, between = geometry.class_distances(*(torch.from_numpy(one) for one in (anchors, others, labels)))
    satisfied = None
    if within is not None and between is not None:
        same = labels[:, None] == labels
        apart = distance(anchors, others)
        negative = np.where(same, np.inf, apart).min(axis=1)  # (N,)
        positives = same & ~np.eye(len(labels), dtype=bool)
        satisfied = float((apart + MARGIN <= negative[:, None])[positives].mean())
    return Distances(within=within, between=between, margin_satisfied=satisfied)
