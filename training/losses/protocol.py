"""What a loss term beside the cross-entropy sees, and what it gives."""

from collections.abc import Sequence
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
    labels: Tensor
    """(N,)."""
    source: ImageSource
    """All training images."""
    generator: torch.Generator
    """For the loss terms alone."""


class LossTerm(Protocol):
    """A weighted term of the loss; a term of weight 0 is not built at all.

    A term says first which images it wants embedded, and the loop embeds them in one pass with the attacked ones.
    Passes of their own would normalise each kind of image by its own batch statistics, while the running statistics
    mix them: the network of eval mode, which is attacked and exported, would not be the one that was trained.
    """

    def images(self, step: TrainingStep) -> Sequence[Tensor]:
        """The clean images that it wants embedded, each (M, C, H, W)."""

    def __call__(self, step: TrainingStep, anchors: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Its value, weight included: a scalar.

        Args:
            anchors: (N, D) embeddings of the attacked images, un-normalised, with gradient.
            others: (M, D) the same of each of `images`.
        """
