"""What a loss term beside the cross-entropy sees, and what it gives."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from training.data.batches import ImageSource
from training.models import Classifier

__all__ = ["LossTerm", "TrainingStep"]


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """One batch in the middle of a training step; the model is in train mode."""

    model: Classifier
    clean: Tensor
    """(N, C, H, W) in [0, 1], augmented."""
    attacked: Tensor
    """(N, C, H, W), made from clean."""
    embeddings: Tensor
    """(N, D) of attacked, un-normalised, with gradient."""
    labels: Tensor
    """(N,)."""
    source: ImageSource
    """All training images."""
    generator: torch.Generator
    """For the loss terms alone."""


class LossTerm(Protocol):
    """A weighted term of the loss; a term of weight 0 is not built at all."""

    def __call__(self, step: TrainingStep) -> Tensor:
        """Its value, weight included: a scalar."""
