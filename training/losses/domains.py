"""Adversarial training over several norms with weights that find the hard ones.

    loss = mean over images of sum_i w_i CE(f(x + delta_i), y)              delta_i = the attack in norm i
    w    = Proj_simplex( 1/K + CE_i / gamma ), held fixed in the gradient

gamma without bound gives equal weights (AVG), gamma 0 the worst norm of each image alone (MAX).

Source: the generalised adversarial training of Wang et al. 2021 (NeurIPS); the formula of the weights is our reading of
their equation for attacks, solved for a loss that stands still, since their text was not available to us. AVG and MAX:
Tramèr and Boneh 2019 (arXiv 1904.13000).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.attacks.projection import onto_simplex
from training.losses.protocol import TrainingStep, Views

__all__ = ["DomainCrossEntropy", "domain_weights"]


def domain_weights(losses: Tensor, gamma: float) -> Tensor:
    """Weights (N, K) on the simplex for losses (N, K), without gradient.

    Args:
        losses: of each image in each domain, at least 0.
        gamma: above 0; 0 is the limit that puts all weight on the largest loss, infinity that of equal weights.
    """
    losses = losses.detach()
    if gamma == 0:
        return F.one_hot(losses.argmax(dim=1), losses.shape[1]).to(losses)
    return onto_simplex(1 / losses.shape[1] + losses / gamma)


@dataclass(frozen=True, kw_only=True)
class DomainCrossEntropy:
    """Takes the place of the cross-entropy on attacked images, which other terms go on seeing."""

    gamma: float
    """Infinity is AVG, 0 is MAX."""
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if math.isnan(self.gamma) or self.gamma < 0:
            raise ValueError(f"domains: expected gamma of at least 0, got {self.gamma}")

    def images(self, step: TrainingStep) -> Sequence[Tensor]:
        """The attacked images of every domain."""
        return step.domains

    def __call__(self, step: TrainingStep, attacked: Views, others: Sequence[Views]) -> Tensor:
        """See LossTerm."""
        losses = torch.stack(
            [
                F.cross_entropy(views.logits, step.labels, reduction="none", label_smoothing=self.label_smoothing)
                for views in others
            ],
            dim=1,
        )  # (N, K)
        return (domain_weights(losses, self.gamma) * losses).sum(dim=1).mean()
