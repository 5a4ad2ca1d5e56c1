"""Slow, obvious versions of the mathematics, written from the formulas."""

import itertools
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


def log_odds_against(logits: Vector) -> float:
    """log((1 - p) / p), p the largest softmax probability."""
    total = sum(math.exp(z) for z in logits)
    largest = max(math.exp(z) / total for z in logits)
    return math.log((1 - largest) / largest)


def divergence(before: Vector, after: Vector) -> float:
    """Kullback-Leibler divergence in nats between the softmax probabilities of two rows of logits."""
    p, q = np.exp(before) / np.exp(before).sum(), np.exp(after) / np.exp(after).sum()
    return float(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))


def centroid_margin(row: Vector, centroids: Sequence[Vector], predicted: int) -> float:
    distances = [math.dist(row, centroid) for centroid in centroids]
    return distances[predicted] - min(d for c, d in enumerate(distances) if c != predicted)


def neighbour_distance(row: Vector, others: Sequence[Vector], labels: Sequence[int], predicted: int, k: int) -> float:
    """Squared distance to the k-th nearest of the others that have the predicted label."""
    own = sorted(math.dist(row, other) ** 2 for other, label in zip(others, labels, strict=True) if label == predicted)
    return own[k - 1]


def farthest_first(rows: Sequence[Vector], count: int) -> list[int]:
    """Positions: the row nearest to the mean, then always the row farthest from those chosen."""
    mean = np.mean(rows, axis=0)
    chosen = [min(range(len(rows)), key=lambda i: math.dist(rows[i], mean))]
    while len(chosen) < min(count, len(rows)):
        left = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(max(left, key=lambda i: min(math.dist(rows[i], rows[c]) for c in chosen)))
    return chosen


def blurred(image: np.ndarray, deviation: float) -> np.ndarray:
    """Each pixel of an (H, W) image becomes the mean of all, weighted by a Gaussian of their distance."""
    result = np.empty(image.shape)
    for place in np.ndindex(*image.shape):
        weights = np.empty(image.shape)
        for other in np.ndindex(*image.shape):
            weights[other] = math.exp(-(math.dist(place, other) ** 2) / (2 * deviation**2))
        result[place] = (weights * image).sum() / weights.sum()
    return result


def cooccurrence(residual: np.ndarray, step: float, limit: int) -> list[float]:
    """Roots of how often two levels of an (h, w) residual are neighbours; pairs of other sign or order are one.

    A value belongs to the levels -limit ... limit in the shares exp(-2 (value - level)^2), after division by the step
    and limit * tanh(value / limit). The mean is over neighbours along rows and that along columns, half of each.
    """
    levels = range(-limit, limit + 1)
    shares = np.empty((*residual.shape, len(levels)))
    for i, j in np.ndindex(*residual.shape):
        value = limit * math.tanh(residual[i, j] / step / limit)
        weights = [math.exp(-2 * (value - level) ** 2) for level in levels]
        shares[i, j] = np.array(weights) / sum(weights)
    height, width = residual.shape
    found: dict[tuple[int, int], float] = {}
    for (a, first), (b, second) in itertools.product(enumerate(levels), repeat=2):
        along = np.mean([shares[i, j, a] * shares[i, j + 1, b] for i in range(height) for j in range(width - 1)])
        across = np.mean([shares[i, j, a] * shares[i + 1, j, b] for i in range(height - 1) for j in range(width)])
        pair = max((first, second), (second, first), (-first, -second), (-second, -first))
        found[pair] = found.get(pair, 0.0) + float(along + across) / 2
    return [math.sqrt(found[pair] + 1 / residual.size) for pair in sorted(found)]
