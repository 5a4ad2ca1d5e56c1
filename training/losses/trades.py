"""TRADES: cross-entropy on clean images and the divergence of attacked answers from clean ones.

    loss = CE(f(x), y) + beta * mean KL( softmax f(x) || softmax f(x') )

Source: Zhang et al. 2019 (arXiv 1901.08573). We differ in the attack's random start, uniform in the ball as for every
other method (the released code draws a normal of 0.001), and in passing clean and attacked images together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from training.losses.protocol import TrainingStep, Views

__all__ = ["Trades", "divergence"]


def divergence(clean: Tensor, attacked: Tensor) -> Tensor:
    """(N,) KL( softmax clean || softmax attacked ) of logits (N, classes), at least 0."""
    expected, found = F.log_softmax(clean, dim=1), F.log_softmax(attacked, dim=1)
    return (expected.exp() * (expected - found)).sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class Trades:
    """Takes the place of the cross-entropy on attacked images."""

    weight: float
    """beta."""
    label_smoothing: float = 0.0

    def images(self, step: TrainingStep) -> Sequence[Tensor]:
        """The clean images."""
        return (step.clean,)

    def __call__(self, step: TrainingStep, attacked: Views, others: Sequence[Views]) -> Tensor:
        """See LossTerm."""
        (clean,) = others
        natural = F.cross_entropy(clean.logits, step.labels, label_smoothing=self.label_smoothing)
        return natural + self.weight * divergence(clean.logits, attacked.logits).mean()
