"""One gradient step from the clean image."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from training.attacks.checks import check_budget
from training.attacks.objectives import cross_entropy, input_gradients
from training.attacks.protocol import undisturbed
from training.attacks.threat import Norm, named_norm

__all__ = ["Fgsm"]


@dataclass(frozen=True, kw_only=True)
class Fgsm:
    """x' = clip_[0,1](x + eps * steepest(grad CE)).

    Source: Goodfellow et al. 2015 (arXiv 1412.6572); with norm l2 the step has length eps.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float
    within: Norm | None = field(default=None, compare=False, repr=False)
    """As of Pgd."""

    def __post_init__(self) -> None:
        check_budget("fgsm", self.norm, self.eps, 0.0)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1] and in the ball; draws nothing."""
        with undisturbed(model):
            gradients, _ = input_gradients(model, images, labels, cross_entropy)
        norm = self.within or named_norm(self.norm)
        changes = self.eps * norm.steepest(gradients)
        if self.within is not None and self.norm == "linf":  # the step is as long where a pixel has less
            changes = norm.project(changes, self.eps)
        return (images.detach() + changes).clamp(0, 1)
