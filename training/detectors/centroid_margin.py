"""Margin of the embedding between the centre of its predicted class and the nearest other one."""

from typing import ClassVar, Self

import torch
from torch import Tensor

from service.detection.types import FlagReason
from training.detectors.classes import at_least_two, class_means
from training.detectors.detector import CleanViews, Detector
from training.detectors.distances import is_predicted, squared_distances

__all__ = ["CentroidMargin"]


class CentroidMargin(Detector):
    """Distance to the centroid of the predicted class minus distance to the nearest other centroid.

    Negative where the centroids agree with the predicted class. A step of length s in the embedding changes the score
    by at most 2 s, so -score/2 bounds from below the step that makes another centroid the nearest: a small margin says
    that a small step would do, without a gradient.

    Source: the decision of the nearest class mean (Mensink et al. 2013), its margin taken as a score; ours.
    """

    kind: ClassVar[str] = "centroid_margin"
    meaning: ClassVar[str] = "the embedding leans more from its predicted class to another one"
    reason: ClassVar[FlagReason] = FlagReason.LOW_CONFIDENCE

    means: Tensor
    classes: Tensor

    def __init__(self, means: Tensor) -> None:
        """Takes the (L, D) class means, L >= 2."""
        super().__init__()
        self.register_buffer("means", means.float())
        self.register_buffer("classes", torch.arange(len(means)))

    @classmethod
    def fit(cls, clean: CleanViews) -> Self:
        """Means by true class."""
        return cls(class_means(clean.embedding.double(), clean.labels, at_least_two(clean.classes)))

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        # 1e-12: the square root has no gradient at 0.
        distances = (squared_distances(embedding, self.means) + 1e-12).sqrt()  # (N, L)
        predicted = is_predicted(logits, self.classes)
        own = distances.masked_fill(~predicted, 0).sum(dim=1)
        return own - distances.masked_fill(predicted, torch.inf).amin(dim=1)
