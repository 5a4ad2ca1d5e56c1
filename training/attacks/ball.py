"""A budget in one of four norms, together with the box of images: where attacks start, step and are put back.

`training.attacks.threat` knows the geometry of Linf and L2 without the box, for the attacks that clip afterwards.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from service.errors import SetupError
from training.attacks.projection import into_ball
from training.attacks.threat import NORMS, uniform

__all__ = ["BALL_NORMS", "Ball", "BallNorm"]

BallNorm = Literal["linf", "l2", "l1", "l0"]
BALL_NORMS: tuple[BallNorm, ...] = ("linf", "l2", "l1", "l0")


@dataclass(frozen=True, kw_only=True)
class Ball:
    """All images within eps of a clean one that are images, exactly; every method treats each image alone."""

    norm: BallNorm = "linf"
    """l0 counts the values (channels of pixels) that are changed."""
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in BALL_NORMS:
            raise SetupError(f"norm: expected one of {', '.join(BALL_NORMS)}, got {self.norm!r}")
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise SetupError(f"eps: expected a number above 0 for norm {self.norm}, got {self.eps}")
        if self.norm == "l0" and self.eps != int(self.eps):
            raise SetupError(f"eps: expected a whole number of values for norm l0, got {self.eps}")
        if self.norm == "linf" and self.eps > 1:
            raise SetupError(f"eps: expected at most 1 for norm linf, got {self.eps}")

    def scaled(self, share: float) -> "Ball":
        """The ball of this share of the budget; at least one value for l0."""
        eps = max(1, round(share * self.eps)) if self.norm == "l0" else share * self.eps
        return Ball(norm=self.norm, eps=eps)

    def nearest(self, places: Tensor, clean: Tensor) -> Tensor:
        """The nearest images (N, C, H, W) of the ball around the clean ones to any places of that shape."""
        return (clean + into_ball(places - clean, -clean, 1 - clean, self.norm, self.eps)).clamp(0, 1)

    def start(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Random images: uniform in the ball (l1: on its sphere; l0: anywhere), then the nearest of ball and box."""
        if self.norm in NORMS:
            return self.nearest(clean + NORMS[self.norm].random_start(clean, self.eps, generator), clean)
        noise = uniform(clean, generator)
        if self.norm == "l1":
            # |u| uniform gives exponential sizes, whose shares are uniform on the sphere of L1.
            sizes = -noise.abs().clamp_min(1e-12).log()
            total = sizes.flatten(1).sum(dim=1).view(-1, 1, 1, 1).clamp_min(1e-12)
            noise = self.eps * noise.sign() * sizes / total
        return self.nearest(clean + noise, clean)

    def direction(self, gradients: Tensor, places: Tensor, spread: float) -> Tensor:
        """Where to go from these places (N, C, H, W), of length 1 in the norm.

        linf and l2 go the steepest way. For l1 that would be one value alone: the largest gradients share the step,
        only those that the box lets move. For l0, whose steepest way has no length, the gradients divided by their
        mean size.

        Args:
            gradients: of what is to rise.
            places: images.
            spread: share of the values that an l1 step moves; at least one.
        """
        if self.norm in NORMS:
            return NORMS[self.norm].steepest(gradients)
        stuck = ((places >= 1) & (gradients > 0)) | ((places <= 0) & (gradients < 0))
        sizes = gradients.abs().masked_fill(stuck, 0).flatten(1)
        if self.norm == "l0":
            return gradients / sizes.mean(dim=1).view(-1, 1, 1, 1).clamp_min(1e-30)
        largest = sizes.topk(max(1, math.ceil(spread * sizes.shape[1])), dim=1)
        shares = (largest.values > 0).float()
        shares = shares / shares.sum(dim=1, keepdim=True).clamp_min(1)
        return torch.zeros_like(sizes).scatter(1, largest.indices, shares).view_as(gradients) * gradients.sign()

    def size(self, deltas: Tensor) -> Tensor:
        """(N,) lengths of deltas (N, C, H, W)."""
        if self.norm in NORMS:
            return NORMS[self.norm].size(deltas)
        flat = deltas.flatten(1)
        return (flat != 0).sum(dim=1).float() if self.norm == "l0" else flat.abs().sum(dim=1)
