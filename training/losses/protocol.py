"""What a loss term sees, and what it gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from training.data.batches import ImageSource
from training.models import Classifier

__all__ = ["LossTerm", "TrainingStep", "Views"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingStep:
    """One batch in the middle of a training step; the model is in train mode. Equal to itself alone."""

    model: Classifier
    clean: Tensor
    """(N, C, H, W) in [0, 1], augmented."""
    attacked: Tensor
    """(N, C, H, W), made from clean."""
    labels: Tensor
    """(N,)."""
    positions: Tensor
    """(N,) where the clean images stand in the source, on the CPU."""
    source: ImageSource
    """All training images."""
    epoch: int
    """Epochs completed before this step."""
    generator: torch.Generator
    """For the loss terms alone."""
    domains: tuple[Tensor, ...] = ()
    """Attacked in each of several norms, (N, C, H, W) each; `attacked` is then the worst of them for each image."""
    weight: float = 1.0
    """Of the terms' values; below 1 where a batch has two kinds of images, each with a step of its own."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """What the network makes of M images in train mode, with gradient, in float32."""

    embeddings: Tensor
    """(M, D), un-normalised."""
    logits: Tensor
    """(M, classes)."""


class LossTerm(Protocol):
    """A weighted term of the loss; a term of weight 0 is not built at all.

    A term says first which images it wants to see, and the loop passes them through the network together with the
    attacked ones. Passes of their own would normalise each kind of image by its own batch statistics, while the
    running statistics mix them: the network of eval mode, attacked and exported, would not be the one that was trained.
    """

    def images(self, step: TrainingStep) -> Sequence[Tensor]:
        """The images that it wants to see, each (M, C, H, W); one and the same tensor is passed only once."""

    def __call__(self, step: TrainingStep, attacked: Views, others: Sequence[Views]) -> Tensor:
        """Its value, weight included: a scalar.

        Args:
            step: as `images` saw it.
            attacked: of the attacked images.
            others: of each of `images`.
        """
