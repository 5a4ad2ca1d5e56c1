"""Tuples of an anchor, a positive of its class and a negative of another one, mined among the images of a batch."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["ROLES", "Tuples", "euclidean", "mine"]

ROLES = ("anchor", "positive", "negative")


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuples:
    """T tuples, as positions (T,) in the batch; an image without a positive or a negative there is no anchor."""

    anchors: Tensor
    positives: Tensor
    negatives: Tensor

    def __len__(self) -> int:
        return len(self.anchors)

    def of(self, role: str) -> Tensor:
        """(T,) positions of the images in this role."""
        return {"anchor": self.anchors, "positive": self.positives, "negative": self.negatives}[role]

    def used(self, role: str) -> tuple[Tensor, Tensor]:
        """The positions (U,) of the different images in this role, rising, and for each tuple (T,) which of them."""
        places, rows = torch.unique(self.of(role), return_inverse=True)
        return places, rows


def euclidean(left: Tensor, right: Tensor) -> Tensor:
    """Distances (N,) of rows (N, D); equal rows give 1e-6, where the gradient is finite."""
    return (left - right).square().sum(dim=1).clamp_min(1e-12).sqrt()


def mine(
    embeddings: Tensor,
    labels: Tensor,
    mining: Literal["semi-hard", "hard", "random"],
    margin: float,
    generator: torch.Generator,
    *,
    count: int = 1,
) -> Tuples:
    """Tuples for each image that finds its partners: a random positive, and a negative by `mining`.

    semi-hard takes a random negative with d(a, p) < d(a, n) < d(a, p) + margin; where there is none, the nearest of
    those that are farther than the positive, or else the farthest of all.

    Args:
        embeddings: (N, D) of clean images, unit length.
        labels: (N,).
        mining: which negative.
        margin: of semi-hard.
        generator: of the random choices.
        count: tuples of each anchor, chosen independently.

    Source: Schroff et al. 2015 (arXiv 1503.03832) for semi-hard; the fallback is ours.
    """
    with torch.autocast(embeddings.device.type, enabled=False):  # bf16 cannot tell near ones apart
        distances = torch.cdist(embeddings.float(), embeddings.float(), compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels[None, :]
    friends = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    anchors = (friends.any(dim=1) & ~same.all(dim=1)).nonzero()[:, 0]
    positives, negatives = [], []
    for _ in range(count):
        near = _any_of(friends, generator)
        positives.append(near[anchors])
        negatives.append(_negatives(distances, ~same, near, mining, margin, generator)[anchors])
    return Tuples(anchors=anchors.repeat(count), positives=torch.cat(positives), negatives=torch.cat(negatives))


def _negatives(
    distances: Tensor, others: Tensor, positives: Tensor, mining: str, margin: float, generator: torch.Generator
) -> Tensor:
    if mining == "random":
        return _any_of(others, generator)
    if mining == "hard":
        return distances.masked_fill(~others, torch.inf).argmin(dim=1)
    near = distances.gather(1, positives[:, None])
    farther = others & (distances > near)
    inside = farther & (distances < near + margin)
    nearest = distances.masked_fill(~farther, torch.inf).argmin(dim=1)
    farthest = distances.masked_fill(~others, -torch.inf).argmax(dim=1)
    beyond = torch.where(farther.any(dim=1), nearest, farthest)
    return torch.where(inside.any(dim=1), _any_of(inside, generator), beyond)


def _any_of(allowed: Tensor, generator: torch.Generator) -> Tensor:
    """For each row of (N, N) a random column that is allowed, (N,); any where none is."""
    draws = torch.rand(allowed.shape, generator=generator).to(allowed.device)
    return draws.masked_fill(~allowed, -torch.inf).argmax(dim=1)
