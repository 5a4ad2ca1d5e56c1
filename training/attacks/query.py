"""Attacks on the query of a retrieval; the gallery stays clean.

A query with its gallery is a classifier of two classes: minus the distance to the nearest item of the query's own
class, and minus that to the nearest item of any other. It is right where the first is larger, which is R@1, and every
attack on classifiers attacks it: `away` raises the first distance, `toward` lowers the second, `margin` moves the
difference.
"""

import torch
from torch import Tensor, nn

from training.models import Classifier

__all__ = ["QueryClassifier", "own_labels"]


class QueryClassifier(nn.Module):
    """The two distances of a batch of queries, which of the gallery each may find being fixed."""

    def __init__(self, model: Classifier, gallery: Tensor, own: Tensor, other: Tensor) -> None:
        """Takes the gallery's embeddings (G, D) of unit length, and what is whose.

        Args:
            model: whose embedding is attacked.
            gallery: on the model's device.
            own: (N, G) where an item is of the query's class and may be found; each row has one.
            other: (N, G) the same of the other classes.
        """
        super().__init__()
        self.model = model
        self.gallery = gallery
        self.own = own
        self.other = other

    def forward(self, images: Tensor) -> Tensor:
        """(N, 2) of the N queries (N, C, H, W) in [0, 1]: minus the nearest own and the nearest other distance."""
        squares = (2 - 2 * self.model.embedding(images) @ self.gallery.T).clamp_min(1e-12)  # (N, G)
        nearest = [squares.masked_fill(~whose, torch.inf).amin(dim=1) for whose in (self.own, self.other)]
        return -torch.stack(nearest, dim=1).sqrt()


def own_labels(count: int, device: torch.device) -> Tensor:
    """The label of every query (count,): its own class is the first of the two."""
    return torch.zeros(count, dtype=torch.long, device=device)
