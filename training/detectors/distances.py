"""Distances between embeddings, and which class a row of logits predicts."""

from torch import Tensor

__all__ = ["is_predicted", "squared_distances"]


def is_predicted(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, M) bool: whether each of (M,) labels is the class that (N, L) logits predict."""
    return logits.argmax(dim=1)[:, None] == labels


def squared_distances(rows: Tensor, points: Tensor) -> Tensor:
    """(N, M) squared Euclidean distances of (N, D) rows to (M, D) points, by one matrix product."""
    products = rows @ points.T  # (N, M)
    norms = rows.square().sum(dim=1, keepdim=True) + points.square().sum(dim=1)
    return (norms - 2 * products).clamp(min=0)  # rounding may leave a distance of 0 below it
