"""Maximum softmax probability, the usual baseline."""

from typing import ClassVar, Self

import torch
from torch import Tensor

from service.detection.types import FlagReason
from training.detectors.classes import at_least_two
from training.detectors.detector import CleanViews, Detector
from training.detectors.distances import is_predicted

__all__ = ["Softmax"]


class Softmax(Detector):
    """Log odds against the predicted class, log((1 - p) / p) with p the largest softmax probability.

    Source: Hendrycks & Gimpel 2017 (arXiv 1610.02136) take 1 - p, which ranks images in the same order; but it is 0
        in float32, and so is its gradient, once p is within 6e-8 of 1.
    """

    kind: ClassVar[str] = "softmax"
    meaning: ClassVar[str] = "the classifier is less sure of its answer"
    reason: ClassVar[FlagReason] = FlagReason.LOW_CONFIDENCE

    classes: Tensor

    def __init__(self, classes: int) -> None:
        """Takes L, 2 or more."""
        super().__init__()
        self.register_buffer("classes", torch.arange(classes))

    @classmethod
    def fit(cls, clean: CleanViews) -> Self:
        """Nothing but the number of classes is learned."""
        return cls(at_least_two(clean.classes))

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        others = logits.masked_fill(is_predicted(logits, self.classes), -torch.inf)
        return torch.logsumexp(others, dim=1) - logits.amax(dim=1)
