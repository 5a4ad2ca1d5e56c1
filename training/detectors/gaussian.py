"""Class-conditional Gaussian on the embedding: Mahalanobis distance to the predicted class."""

from typing import ClassVar, Self

from torch import Tensor

from service.detection.types import FlagReason
from training.detectors.classes import class_means
from training.detectors.detector import CleanViews, Detector
from training.detectors.mahalanobis import shrunk_whitening

__all__ = ["ClassGaussian"]


class ClassGaussian(Detector):
    """Squared Mahalanobis distance of the embedding to the mean of the predicted class.

    One covariance is shared by the classes and shrunk, since a class may have fewer images than dimensions.

    Source: Lee et al. 2018 (arXiv 1807.03888). They take the nearest class; the predicted one also notices an
        embedding that lies in another class than its label says.
    """

    kind: ClassVar[str] = "gaussian"
    meaning: ClassVar[str] = "the embedding lies farther from the centre of its predicted class"
    reason: ClassVar[FlagReason] = FlagReason.FEATURE_DENSITY

    means: Tensor
    whitening: Tensor

    def __init__(self, means: Tensor, whitening: Tensor) -> None:
        """Takes (L, D) class means and the (D, D) whitening of their shared covariance."""
        super().__init__()
        self.register_buffer("means", means.float())
        self.register_buffer("whitening", whitening.float())

    @classmethod
    def fit(cls, clean: CleanViews) -> Self:
        """Means by true class; one Ledoit-Wolf covariance of what remains."""
        embedding = clean.embedding.double()
        means = class_means(embedding, clean.labels, clean.classes)  # (L, D)
        return cls(means, shrunk_whitening(embedding - means[clean.labels]))

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        away = embedding - self.means[logits.argmax(dim=1)]  # (N, D)
        return (away @ self.whitening).square().sum(dim=1)
