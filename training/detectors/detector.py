"""What a detector is: a torch module with frozen buffers, fitted on clean images only."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from service.detection.types import FlagReason

__all__ = ["CleanViews", "Detector", "shrunk_whitening"]


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

    @property
    def classes(self) -> int:
        """L, the number of classes."""
        return self.logits.shape[1]


class Detector(nn.Module, ABC):
    """Gives one score for each image; larger is more suspicious.

    A fitted detector belongs to the classifier that it was fitted on and is exported with it.
    """

    kind: ClassVar[str]
    """Its name in DETECTORS."""
    meaning: ClassVar[str]
    """What a high score means, ending before "than in ... of clean images"."""
    reason: ClassVar[FlagReason]

    @classmethod
    @abstractmethod
    def fit(cls, clean: CleanViews) -> Self:
        """A new detector, fitted on clean images.

        Raises:
            SetupError: the images are too few or miss a class.
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


def shrunk_whitening(centred: Tensor) -> Tensor:
    """W of the shrunk covariance of centred rows, so that |row W|^2 is the squared Mahalanobis distance.

    Args:
        centred: (n, D), float64, each row minus its mean.

    Returns:
        (D, D) float64, W W^T = inverse covariance.

    Source: Ledoit & Wolf 2004, shrinkage towards a multiple of the identity, by scikit-learn. The triangular
        factor of the covariance is inverted, never the covariance itself.
    """
    from sklearn.covariance import ledoit_wolf  # slow to import, and only fitting needs it

    covariance, _ = ledoit_wolf(centred.numpy(), assume_centered=True)
    # The embedding lives on a sphere: with few images a direction may not vary at all.
    floor = max(1e-6 * float(covariance.trace()) / len(covariance), 1e-12)
    shrunk = torch.from_numpy(covariance) + floor * torch.eye(len(covariance), dtype=torch.float64)
    lower = torch.linalg.cholesky(shrunk)
    identity = torch.eye(len(lower), dtype=torch.float64)
    inverse: Tensor = torch.linalg.solve_triangular(lower, identity, upper=False)
    return inverse.T.contiguous()
