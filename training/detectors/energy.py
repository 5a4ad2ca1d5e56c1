"""Free energy of the logits."""

from typing import ClassVar, Self

import torch
from torch import Tensor

from service.detection.types import FlagReason
from training.detectors.detector import CleanViews, Detector

__all__ = ["Energy"]


class Energy(Detector):
    """-log sum exp of the logits: large where all of them are small.

    Source: Liu et al. 2020 (arXiv 2010.03759), at temperature 1 and without their fine-tuning.
    """

    kind: ClassVar[str] = "energy"
    meaning: ClassVar[str] = "the classifier's evidence for all classes together is weaker"
    reason: ClassVar[FlagReason] = FlagReason.ENERGY

    @classmethod
    def fit(cls, clean: CleanViews) -> Self:
        """Nothing is learned."""
        return cls()

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        return -torch.logsumexp(logits, dim=1)
