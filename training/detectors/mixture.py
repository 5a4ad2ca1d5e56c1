"""Gaussian mixture on the unit-norm embedding, one component a class: TLA's detector."""

import math
from typing import ClassVar, Literal, Self, TypeAlias

import torch
from torch import Tensor

from service.detection.types import FlagReason
from training.detectors.classes import class_counts, class_means
from training.detectors.detector import CleanViews, Detector

__all__ = ["Component", "GaussianMixture"]

Component: TypeAlias = Literal["predicted", "nearest", "all"]


class GaussianMixture(Detector):
    """Negative log density of the embedding, in nats: low density is suspicious.

    Source: Mao et al. 2019 (arXiv 1909.00900) detect by the density of the penultimate layer, one Gaussian a class,
        low density being suspicious. Ours differs in the fit: on clean images only, of the unit-norm embedding, with
        a diagonal covariance for each class plus r I, r = 1e-3 of the mean variance, since a class may have far fewer
        images than dimensions. A class of few images borrows from the variance shared by all.
    """

    kind: ClassVar[str] = "mixture"
    meaning: ClassVar[str] = "the embedding lies in a sparser region"
    reason: ClassVar[FlagReason] = FlagReason.FEATURE_DENSITY

    means: Tensor
    deviations: Tensor
    log_weights: Tensor

    def __init__(
        self, means: Tensor, deviations: Tensor, log_weights: Tensor, *, component: Component = "predicted"
    ) -> None:
        """Takes (L, D) means and standard deviations and the (L,) log share of each class.

        Args:
            component: the density of the predicted class, of the nearest one, or of the whole mixture.
        """
        super().__init__()
        self.register_buffer("means", means.float())
        self.register_buffer("deviations", deviations.float())
        self.register_buffer("log_weights", log_weights.float())
        self.component: Component = component

    @classmethod
    def fit(cls, clean: CleanViews, *, component: Component = "predicted") -> Self:
        """Means, variances and shares by true class."""
        embedding, labels = clean.embedding.double(), clean.labels
        counts = class_counts(labels, clean.classes, at_least=2).double()
        means = class_means(embedding, labels, clean.classes)
        squares = (embedding - means[labels]).square()  # (n, D)
        own = class_means(squares, labels, clean.classes)  # (L, D)
        shared = squares.mean(dim=0)  # (D,)
        trust = (counts / (counts + clean.embedding.shape[1]))[:, None]  # (L, 1), n_k / (n_k + D)
        variances = trust * own + (1 - trust) * shared + 1e-3 * shared.mean() + 1e-12
        return cls(means, variances.sqrt(), (counts / counts.sum()).log(), component=component)

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        if self.component == "predicted":
            chosen = logits.argmax(dim=1)
            return -self._log_density(embedding, self.means[chosen], self.deviations[chosen])
        each = self._log_density(embedding[:, None], self.means, self.deviations)  # (N, L)
        if self.component == "nearest":
            return -each.amax(dim=1)
        return -torch.logsumexp(each + self.log_weights, dim=1)

    @staticmethod
    def _log_density(embedding: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
        standard = (embedding - means) / deviations
        constant = embedding.shape[-1] * math.log(2 * math.pi)
        return -0.5 * (standard.square().sum(-1) + 2 * deviations.log().sum(-1) + constant)
