"""Slow, obvious versions of the mathematics, written from the formulas."""

import math
from collections.abc import Sequence

import numpy as np

Vector = Sequence[float]


def cosine(left: Vector, right: Vector) -> float:
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    return dot / (math.hypot(*left) * math.hypot(*right))


def triplet(
    anchors: Sequence[Vector],
    positives: Sequence[Vector],
    negatives: Sequence[Vector],
    margin: float,
    norm_weight: float,
) -> float:
    """mean max(0, D(a,p) - D(a,n) + margin) + lambda2 * mean(a^2 + p^2 + n^2), D = 1 - |cos|."""
    hinges, squares = [], []
    for a, p, n in zip(anchors, positives, negatives, strict=True):
        near, far = 1 - abs(cosine(a, p)), 1 - abs(cosine(a, n))
        hinges.append(max(0.0, near - far + margin))
        squares += [x**2 + y**2 + z**2 for x, y, z in zip(a, p, n, strict=True)]
    return sum(hinges) / len(hinges) + norm_weight * sum(squares) / len(squares)


def hardest_negative(
    anchor: Vector, label: int, pool: Sequence[Vector], labels: Sequence[int], *, mine_by: str = "cosine"
) -> int:
    """Position of the most similar vector of another class; -1 where there is none."""
    best, place = -math.inf, -1
    for position, (other, other_label) in enumerate(zip(pool, labels, strict=True)):
        similar = cosine(anchor, other)
        similar = abs(similar) if mine_by == "distance" else similar
        if other_label != label and similar > best:
            best, place = similar, position
    return place


def auroc(attacked: np.ndarray, clean: np.ndarray) -> float:
    wins = sum(1.0 if a > c else 0.5 if a == c else 0.0 for a in attacked for c in clean)
    return wins / (len(attacked) * len(clean))


def tpr_at_fpr(attacked: np.ndarray, clean: np.ndarray, fpr: float) -> float:
    best = 0.0
    for threshold in [-np.inf, *clean, *attacked]:
        if np.mean(clean > threshold) <= fpr + 1e-12:
            best = max(best, float(np.mean(attacked > threshold)))
    return best


def bootstrap_aurocs(attacked: np.ndarray, clean: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Repeats each image as often as it was drawn."""
    return np.array([auroc(np.repeat(attacked, w.astype(int)), np.repeat(clean, w.astype(int))) for w in weights])
