"""Distance to the nearest kept clean embeddings of the predicted class."""

from typing import ClassVar, Self

import torch
from torch import Tensor

from service.detection.types import FlagReason
from training.detectors.classes import class_counts
from training.detectors.detector import CleanViews, Detector
from training.detectors.distances import is_predicted, squared_distances

__all__ = ["NearestNeighbours", "k_centres"]

NEIGHBOURS = 3
"""The greedy choice always keeps the odd ones of a class; one of them alone must not vouch for an image."""
KEPT = 2048
"""Embeddings kept of all classes together, at most; each class has the same share."""


class NearestNeighbours(Detector):
    """Squared distance to the third nearest kept clean embedding of the predicted class.

    Of the predicted class only: an embedding amid the images of another class is then as suspicious as one far from
    all of them, whereas the nearest of any class would vouch for it.

    Source: Sun et al. 2022 (arXiv 2204.06507), k-th nearest on the unit sphere, there of all training images and of
        any class. The core set is that of Roth et al. 2022 (arXiv 2106.08265), chosen in each class by itself.
    """

    kind: ClassVar[str] = "knn"
    meaning: ClassVar[str] = "the embedding lies farther from the known images of its predicted class"
    reason: ClassVar[FlagReason] = FlagReason.FEATURE_DENSITY
    images_a_class: ClassVar[int] = NEIGHBOURS

    kept: Tensor
    labels: Tensor

    def __init__(self, kept: Tensor, labels: Tensor) -> None:
        """Takes (M, D) clean embeddings and their (M,) classes, three or more of each class."""
        super().__init__()
        self.register_buffer("kept", kept.float())
        self.register_buffer("labels", labels)

    @classmethod
    def fit(cls, clean: CleanViews) -> Self:
        """Keeps a core set of each true class."""
        class_counts(clean.labels, clean.classes, at_least=NEIGHBOURS)
        share = max(KEPT // clean.classes, NEIGHBOURS)
        embedding = clean.embedding.double()
        chosen = []
        for label in range(clean.classes):
            members = (clean.labels == label).nonzero()[:, 0]
            chosen.append(members[k_centres(embedding[members], share)])
        positions = torch.cat(chosen)
        return cls(embedding[positions], clean.labels[positions])

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        distances = squared_distances(embedding, self.kept)  # (N, M)
        own = distances.masked_fill(~is_predicted(logits, self.labels), torch.inf)
        return own.topk(NEIGHBOURS, dim=1, largest=False).values[:, -1]


def k_centres(rows: Tensor, count: int) -> Tensor:
    """Positions of rows that leave no other far from all of them; all rows where there are no more than `count`.

    Args:
        rows: (n, D), n >= 1.
        count: 1 or more.

    Returns:
        (min(n, count),) int64, the row nearest to the mean first.

    Source: the greedy choice of Gonzalez 1985, whose largest distance is at most twice the least possible; it needs
        no random start and so gives the same rows each time.
    """
    first = (rows - rows.mean(dim=0)).square().sum(dim=1).argmin()
    chosen = [first]
    away = squared_distances(rows, rows[first, None])[:, 0]  # (n,), to the nearest chosen one
    while len(chosen) < min(len(rows), count):
        away[chosen[-1]] = -1  # equal rows have distance 0 as well, and no row is chosen twice
        chosen.append(away.argmax())
        away = torch.minimum(away, squared_distances(rows, rows[chosen[-1], None])[:, 0])
    return torch.stack(chosen)
