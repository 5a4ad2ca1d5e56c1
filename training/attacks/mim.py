"""Momentum iterative method: gradient steps along an average of all gradients so far."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.attacks.checks import check_budget
from training.attacks.objectives import cross_entropy, input_gradients
from training.attacks.protocol import undisturbed
from training.attacks.threat import named_norm

__all__ = ["Mim"]


@dataclass(frozen=True, kw_only=True)
class Mim:
    """g <- momentum g + grad CE / ||grad CE||_1;  x' <- clip_[0,1](proj(x' + step * steepest(g))).

    It starts at the clean image. An image stays where it first fools; one that never does ends after the last step.

    Source: Dong et al. 2018 (arXiv 1710.06081), where images go on moving after they fool.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float
    step: float = 0.0
    """0 takes eps / steps."""
    steps: int = 10
    momentum: float = 1.0

    def __post_init__(self) -> None:
        check_budget("mim", self.norm, self.eps, self.step)
        if self.steps < 1:
            raise ValueError(f"mim: expected steps of at least 1, got {self.steps}")
        if not self.momentum >= 0:
            raise ValueError(f"mim: expected a momentum of at least 0, got {self.momentum}")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1] and in the ball; draws nothing."""
        norm, step = named_norm(self.norm), self.step or self.eps / self.steps
        found = images.detach().clone()
        rows = torch.arange(len(images), device=images.device)  # of those that still resist
        average = torch.zeros_like(found)
        with undisturbed(model):
            for _ in range(self.steps):
                gradients, logits = input_gradients(model, found[rows], labels[rows], cross_entropy)
                resists = logits.argmax(dim=1) == labels[rows]
                rows, gradients, average = rows[resists], gradients[resists], average[resists]
                if not len(rows):
                    break
                average = self.momentum * average + _unit_sum(gradients)
                clean = images[rows].detach()
                moved = found[rows] + step * norm.steepest(average) - clean
                found[rows] = (clean + norm.project(moved, self.eps)).clamp(0, 1)
        return found


def _unit_sum(gradients: Tensor) -> Tensor:
    """Each image's gradients divided by the sum of their sizes; 0 stays 0."""
    sums = gradients.abs().flatten(1).sum(dim=1).clamp_min(1e-30)
    return gradients / sums.view(-1, 1, 1, 1)
