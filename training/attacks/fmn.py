"""Fast minimum-norm attack: gradient steps inside a ball whose radius closes in on the boundary."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.attacks.objectives import input_gradients, margin
from training.attacks.protocol import undisturbed
from training.attacks.threat import L2
from training.checks import at_least

__all__ = ["Fmn"]

_LEAST_SHARE = 0.01
"""Of the first step is the last."""
_LEAST_GAMMA = 0.001


@dataclass(frozen=True, kw_only=True)
class Fmn:
    """Looks for the nearest image that fools.

    x' climbs the logit margin by steps along the unit gradient. The ball shrinks by a share gamma while x' fools and
    grows by it while it does not; until it first fools, the radius is a little more than the linearised margin needs.
    Both the step and gamma fall along a cosine. An image on which nothing fools comes back as it was.

    foolbox 3.3.4 has it too, but its L2 form scales a change by its length over itself, so that it never shrinks one.

    Source: Pintor et al. 2021 (arXiv 2102.12827). With l0 a pixel counts once whatever its channels, there each value.
    """

    norm: Literal["linf", "l2", "l0"] = "linf"
    """l0 counts pixels."""
    steps: int = 200
    step: float = 1.0
    """Euclidean length of the first step."""
    gamma: float = 0.05
    """Share by which the radius changes at first."""

    def __post_init__(self) -> None:
        at_least(1, "fmn: steps", self.steps)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1]; draws nothing."""
        images = images.detach()
        change, best = torch.zeros_like(images), torch.zeros_like(images)
        nearest = torch.full((len(images),), torch.inf, device=images.device)  # length of the best change
        radius = torch.ones_like(nearest) if self.norm == "l0" else nearest
        with undisturbed(model):
            for number in range(self.steps):
                share = (1 + math.cos(math.pi * number / self.steps)) / 2
                gradients, logits = input_gradients(model, images + change, labels, margin)
                lengths, fools = _lengths(change, self.norm), logits.argmax(dim=1) != labels
                better = fools & (lengths < nearest)
                best[better], nearest = change[better], torch.where(better, lengths, nearest)
                gamma = _LEAST_GAMMA + (self.gamma - _LEAST_GAMMA) * share
                if self.norm == "l0":
                    radius = _next_count(radius, nearest, fools, gamma)
                else:
                    # Of the linearised margin; gamma more, or a bent boundary would only ever be come near to.
                    ahead = (1 + gamma) * (lengths + margin(logits, labels).abs() / _dual(gradients, self.norm))
                    radius = _next_radius(radius, nearest, fools, ahead, gamma)
                step = self.step * (_LEAST_SHARE + (1 - _LEAST_SHARE) * share)
                change = _project(change + step * L2().steepest(gradients), radius, self.norm)
                change = (images + change).clamp(0, 1) - images
        return (images + best).clamp(0, 1)


def _next_radius(radius: Tensor, nearest: Tensor, fools: Tensor, ahead: Tensor, gamma: float) -> Tensor:
    resisting = torch.where(torch.isfinite(nearest), radius * (1 + gamma), ahead)
    return torch.where(fools, torch.minimum(radius * (1 - gamma), nearest), resisting)


def _next_count(radius: Tensor, nearest: Tensor, fools: Tensor, gamma: float) -> Tensor:
    """Whole pixels, one more or less at least."""
    shrunk = torch.minimum(torch.minimum(radius - 1, (radius * (1 - gamma)).floor()), nearest)
    grown = torch.maximum(radius + 1, (radius * (1 + gamma)).floor())
    return torch.where(fools, shrunk, grown).clamp_min(1)


def _sizes(changes: Tensor) -> Tensor:
    """(N, pixels) Euclidean length of each pixel's change."""
    return changes.square().sum(dim=1).sqrt().flatten(1)


def _lengths(changes: Tensor, norm: str) -> Tensor:
    if norm == "l0":
        return (_sizes(changes) > 0).sum(dim=1).float()
    lengths: Tensor = torch.linalg.vector_norm(changes.flatten(1), ord=2 if norm == "l2" else torch.inf, dim=1)
    return lengths


def _dual(gradients: Tensor, norm: str) -> Tensor:
    """By how much the linearised margin rises over a change of length 1."""
    rises: Tensor = torch.linalg.vector_norm(gradients.flatten(1), ord=2 if norm == "l2" else 1, dim=1)
    return rises.clamp_min(1e-12)


def _project(changes: Tensor, radius: Tensor, norm: str) -> Tensor:
    bound = radius.view(-1, 1, 1, 1)
    if norm == "linf":
        return changes.clamp(-bound, bound)
    if norm == "l2":
        return changes * (bound / _lengths(changes, norm).clamp_min(1e-12).view(-1, 1, 1, 1)).clamp_max(1.0)
    ranks = _sizes(changes).argsort(dim=1, descending=True).argsort(dim=1)
    kept = (ranks < radius[:, None]).view(len(changes), 1, *changes.shape[2:])
    return changes * kept
