"""What a detector is: a torch module with frozen buffers, fitted on clean images only."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from service.detection.types import Bytes8, FlagReason
from training.attacks.rounding import from_8_bit
from training.models import Classifier

__all__ = ["CleanViews", "Detector", "Lessons"]

BATCH = 256


def _silent(line: str) -> None:
    pass


@dataclass(frozen=True, kw_only=True, eq=False)
class Lessons:
    """What detectors that are networks of their own learn from: the classifier's training images, all of them clean."""

    images: Bytes8
    """(n, H, W, C)."""
    labels: np.ndarray
    """(n,) int64."""
    eps: float
    """Linf budget of the attacks that the bundle expects, in units of the [0, 1] image."""
    seed: int
    effort: float = 1.0
    """Share of a full training; less is for tests."""
    tell: Callable[[str], None] = _silent
    """Takes a line for people: what is being learned, and the time that is left."""

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) images in [0, 1] and (N,) labels at these positions."""
        places = rows.numpy()
        return from_8_bit(self.images[places]), torch.from_numpy(self.labels[places])


@dataclass(frozen=True, kw_only=True, eq=False)
class CleanViews:
    """Clean images of the fit part, as the trained classifier sees them."""

    images: Tensor
    """(n, C, H, W) in [0, 1]."""
    logits: Tensor
    """(n, L)."""
    embedding: Tensor
    """(n, D), unit L2 norm."""
    labels: Tensor
    """(n,) int64, the true classes."""
    classifier: Classifier
    """The trained classifier itself, in eval mode, for detectors that ask it again."""
    lessons: Lessons
    """For detectors that are networks of their own."""

    @property
    def classes(self) -> int:
        """L, the number of classes."""
        return self.logits.shape[1]

    def at_most(self, count: int) -> Self:
        """These views, or `count` of them that are spread evenly where there are more."""
        chosen = torch.linspace(0, len(self.images) - 1, min(len(self.images), count)).round().long()
        return replace(
            self,
            images=self.images[chosen],
            logits=self.logits[chosen],
            embedding=self.embedding[chosen],
            labels=self.labels[chosen],
        )

    def described(self, describe: Callable[[Tensor], Tensor]) -> Tensor:
        """What a function of (N, C, H, W) images gives for all of them, batch by batch."""
        with torch.no_grad():
            return torch.cat([describe(batch) for batch in torch.split(self.images, BATCH)])


class Detector(nn.Module, ABC):
    """Gives one score for each image; larger is more suspicious.

    A fitted detector belongs to the classifier that it was fitted on and is exported with it.
    """

    kind: ClassVar[str]
    """Its name in DETECTORS."""
    meaning: ClassVar[str]
    """What a high score means, ending before "than in ... of clean images"."""
    reason: ClassVar[FlagReason]
    is_attack_aware: ClassVar[bool] = False
    """Whether fitting it makes attacked images, so that what it finds of that kind proves little."""
    images_a_class: ClassVar[int] = 2
    """Clean images of each class that fitting needs."""

    @classmethod
    @abstractmethod
    def fit(cls, clean: CleanViews) -> Self:
        """A new detector, fitted on clean images.

        Raises:
            SetupError: the images are too few or too small, or miss a class.
        """

    @abstractmethod
    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """Scores N images.

        Args:
            images: (N, C, H, W) in [0, 1].
            logits: (N, L).
            embedding: (N, D), unit L2 norm.

        Returns:
            (N,) float32.
        """
