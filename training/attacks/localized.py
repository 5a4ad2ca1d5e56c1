"""Attacks that change a part of each image only, or one part more than the other.

    delta <- project( delta + step * steepest( [s > 0] grad CE(f(x + delta), y) ) )
    |delta| <= s eps at each pixel,   x + delta in [0, 1]

s is the share of the budget that a pixel has: 1 on the background and 0 elsewhere for a background attack, 1 where a
network looks and 7/8 elsewhere for PART. It follows from the clean image and holds for the whole attack, random start
and rounding to 8 bits included.

Source: Rothberg et al. 2019 (arXiv 1909.04779) for the background alone, implemented from the abstract's formulation
(the text was not available to us); PART (Zhang et al. 2024, arXiv 2406.00685) for two budgets.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks.fgsm import Fgsm
from training.attacks.pgd import Pgd
from training.attacks.threat import L2, Norm, named_norm

__all__ = ["Localized", "PartOf", "Region", "confined", "shares_of"]

Region = Literal["background", "foreground"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PartOf:
    """A norm on images each pixel of which has its own share of the budget.

    Raises:
        SetupError: shares between 0 and 1 with L2, where we have no exact projection.
    """

    norm: Norm
    shares: Tensor
    """(N, 1, H, W) in [0, 1]; for L2 each 0 or 1."""

    def __post_init__(self) -> None:
        if isinstance(self.norm, L2) and bool(((self.shares != 0) & (self.shares != 1)).any()):
            raise SetupError("attack.norm: expected linf where the region's surroundings have a budget too, got l2")

    def random_start(self, images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """See Norm; drawn in the whole ball, then scaled to the shares."""
        return self.shares * self.norm.random_start(images, eps, generator)

    def steepest(self, gradients: Tensor) -> Tensor:
        """See Norm; 0 where a pixel has no budget, elsewhere as long as anywhere."""
        return self.norm.steepest((self.shares > 0) * gradients)

    def project(self, deltas: Tensor, eps: float) -> Tensor:
        """See Norm."""
        if isinstance(self.norm, L2):
            return self.norm.project(self.shares * deltas, eps)
        bounds = eps * self.shares
        return torch.minimum(torch.maximum(deltas, -bounds), bounds)

    def size(self, deltas: Tensor) -> Tensor:
        """See Norm."""
        return self.norm.size(deltas)


def shares_of(background: Tensor, region: Region, elsewhere: float = 0.0) -> Tensor:
    """Shares of the budget, (N, 1, H, W): 1 in the region, `elsewhere` outside of it.

    Args:
        background: (N, 1, H, W), True on the background.
        region: that has the whole budget.
        elsewhere: in [0, 1].
    """
    inside = background if region == "background" else ~background
    return torch.where(inside, 1.0, elsewhere)


def confined(attack: Pgd | Fgsm, shares: Tensor) -> Pgd | Fgsm:
    """The attack on the very images whose shares these are, (N, 1, H, W)."""
    return replace(attack, within=PartOf(norm=named_norm(attack.norm), shares=shares))


@dataclass(frozen=True, kw_only=True)
class Localized:
    """An attack that finds the region of each image by itself."""

    attack: Pgd | Fgsm
    masks: Callable[[Tensor], Tensor]
    """The background (N, 1, H, W) of clean images (N, C, H, W), such as a training.masks.Masks."""
    region: Region
    elsewhere: float = 0.0
    """Share of the budget outside the region."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1] and in the ball; the clean ones outside the region."""
        shares = shares_of(self.masks(images), self.region, self.elsewhere)
        return confined(self.attack, shares)(model, images, labels, generator)
