"""Figures of ranked galleries."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Ranked", "ranked"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """Of Q queries the gallery from the nearest item to the farthest."""

    hits: Tensor
    """(Q, G) bool: whether the item at this rank is of the query's class; what a query must not find is no hit, and
    stands last."""
    relevant: Tensor
    """(Q,) items of the query's class that it may find, at least 1 each."""

    def recall(self, rank: int) -> Tensor:
        """(Q,) 1 where one of the first `rank` items is a hit, else 0."""
        return self.hits[:, :rank].any(dim=1).double()

    def average_precision(self) -> Tensor:
        """(Q,) AP@R: 1/R times the sum, over those of the first R ranks that hit, of the precision at that rank.

        R is the number of relevant items of the query.

        Source: Musgrave et al. 2020 (arXiv 2003.08505).
        """
        ranks = torch.arange(1, self.hits.shape[1] + 1, device=self.hits.device)
        within = self.hits & (ranks <= self.relevant[:, None])
        precisions = self.hits.cumsum(dim=1).double() / ranks
        return (precisions * within).sum(dim=1) / self.relevant


def ranked(queries: Tensor, gallery: Tensor, own: Tensor, other: Tensor) -> Ranked:
    """Ranks a gallery for each query; of equally near items those of other classes come first.

    So an embedding that gives all images one point finds nothing.

    Args:
        queries: (Q, D) embeddings of unit length.
        gallery: (G, D).
        own: (Q, G) where an item is of the query's class and may be found.
        other: (Q, G) the same of the other classes.
    """
    similarities = queries.double() @ gallery.double().T  # the order of distances, turned round
    similarities = similarities.masked_fill(~(own | other), -torch.inf)
    first = own.int().argsort(dim=1, stable=True)
    order = similarities.gather(1, first).argsort(dim=1, descending=True, stable=True)
    hits = own.gather(1, first).gather(1, order)
    return Ranked(hits=hits, relevant=own.sum(dim=1))
