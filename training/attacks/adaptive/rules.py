"""Where an adaptive attack goes next: each rule gives, for each image, the direction that is stepped against."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from training.attacks.adaptive.found import wide
from training.attacks.adaptive.look import Look
from training.attacks.objectives import cross_entropy
from training.attacks.threat import L2, Linf
from training.checks import one_of

__all__ = ["Confident", "Deep", "Lagrangian", "Orthogonal", "Rule", "Selective", "without"]

_COLLINEAR = 1e-6
"""Share of a gradient that must survive projection; less is rounding noise, whose direction means nothing."""


class Rule(Protocol):
    """How an attack weighs the label against the suspicion."""

    def uphill(self, look: Look) -> Tensor:
        """The directions (N, C, H, W) that the next step goes against, of any length; 0 asks for a random one."""


@dataclass(frozen=True, kw_only=True)
class Selective:
    """Descends the margin until it is crossed, then the suspicion: never both at once.

    Source: Bryniarski et al. 2021 (arXiv 2106.15023), their Selective PGD.
    """

    def uphill(self, look: Look) -> Tensor:
        """See Rule."""
        # One pass backwards for both: each image's part of the sum is that of its own choice.
        return look.gradient(torch.where(look.crossed, look.guide.to(look.margins), look.margins))


@dataclass(frozen=True, kw_only=True)
class Orthogonal:
    """As Selective, with each gradient freed from its part along the other, so that one goal costs the other nothing.

    Source: Bryniarski et al. 2021 (arXiv 2106.15023), their Orthogonal PGD, in the form of the released code; equation
        6 as printed is parallel to what it should be orthogonal to. The step's sign undoes the orthogonality for Linf,
        as it does there.
    """

    projects: Literal["both", "classifier", "detector"] = "both"
    """Which gradients are freed; the other one is descended as it is."""

    def __post_init__(self) -> None:
        one_of(("both", "classifier", "detector"), "projects", self.projects)

    def uphill(self, look: Look) -> Tensor:
        """See Rule."""
        label, suspicion = look.gradient(look.margins), look.gradient(look.guide)
        towards_label = label if self.projects == "detector" else without(label, suspicion)
        away_from_notice = suspicion if self.projects == "classifier" else without(suspicion, label)
        return torch.where(wide(look.crossed), away_from_notice, towards_label)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lagrangian:
    """Descends max(margin, -kappa) + weight * suspicion / scale.

    Source: Carlini and Wagner 2017 (arXiv 1705.07263), a detector's loss added to the classifier's.
    """

    weight: float | Tensor
    """Of the suspicion; a number or (N,), one for each image."""
    scale: float = 1.0
    """The unit of the suspicion, such as its `clean_spread`."""
    saturates: bool = True
    """Whether the margin stops to count once it is crossed; else it is lowered without end."""

    def uphill(self, look: Look) -> Tensor:
        """See Rule."""
        margins = torch.where(look.crossed, 0.0, look.margins) if self.saturates else look.margins
        return look.gradient(margins + self.weight * look.guide / self.scale)


@dataclass(frozen=True, kw_only=True)
class Deep:
    """Descends the margin until it is crossed, then by turns the suspicion and minus the lead of the largest logit.

    The wrong label comes to lie so deep that it survives a rule that rejects what a small step turns.

    Source: ours, after the defence of Palumbo et al. 2024 (arXiv 2305.17528), which rejects near the boundary.
    """

    def uphill(self, look: Look) -> Tensor:
        """See Rule."""
        largest = look.logits.topk(2, dim=1).values  # (N, 2)
        lead = (largest[:, 0] - largest[:, 1]).to(look.margins)
        then = look.guide.to(look.margins) if look.step % 2 else -lead
        return look.gradient(torch.where(look.crossed, then, look.margins))


@dataclass(frozen=True, kw_only=True, eq=False)
class Confident:
    """Raises the softmax of one class for each image, whatever the suspicion.

    Source: the maximum-confidence attack of Stutz et al. 2020 (arXiv 1910.06259). We ascend its logarithm, whose
        gradient does not vanish far from the class.
    """

    targets: Tensor
    """(N,) classes."""

    def uphill(self, look: Look) -> Tensor:
        """See Rule."""
        return look.gradient(cross_entropy(look.logits, self.targets))


def without(gradients: Tensor, others: Tensor) -> Tensor:
    """Gradients less their part along others, both (N, C, H, W); as they are where nothing else would remain."""
    units = L2().steepest(others)
    freed = gradients - wide((gradients * units).flatten(1).sum(dim=1)) * units
    # By the largest value and not the length: squares of tiny gradients would vanish.
    remains = Linf().size(freed) > _COLLINEAR * Linf().size(gradients)
    return torch.where(wide(remains), freed, gradients)
