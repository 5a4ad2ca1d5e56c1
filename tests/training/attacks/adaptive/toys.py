"""Targets about which everything is known, in float64 and without rounding."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from service.detection.calibration import Calibration
from training.attacks.adaptive import GraphTarget, Loop


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_logits(margins: Tensor) -> Tensor:
    """Class 0 leads by the margin."""
    return torch.stack([margins, torch.zeros_like(margins)], dim=1)


class Slopes(nn.Module):
    """Margin b - <w, x - x0> / eps and suspicion <v, x - x0> / eps - tau, w and v of length 1 and <w, v> = rho."""

    eps, kappa = 0.2, 0.005

    def __init__(self, *, rho: float, tau: Tensor, b: Tensor) -> None:
        """Takes tau and b of each image, (N,)."""
        super().__init__()
        self.tau, self.b = tau, b
        basis, _ = torch.linalg.qr(torch.randn(16, 2, generator=generator(1), dtype=torch.float64))
        self.w = basis[:, 0]
        self.v = rho * basis[:, 0] + math.sqrt(1 - rho**2) * basis[:, 1]
        self.images = 0.45 + 0.1 * torch.rand(len(b), 1, 4, 4, generator=generator(2), dtype=torch.float64)
        self.limit = tau * rho + ((1 - tau**2) * (1 - rho**2)).sqrt()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        copies = len(images) // len(self.images)  # of the whole batch, one after the other
        change = (images - self.images.repeat(copies, 1, 1, 1)).flatten(1) / self.eps
        return two_logits(self.b.repeat(copies) - change @ self.w), change @ self.v - self.tau.repeat(copies)


class TwoDiscs(nn.Module):
    """Class 1 right of 0.6; accepted inside one of two discs, of which only the far one lies there."""

    eps, kappa = 0.75, 0.05

    def __init__(self, count: int = 200) -> None:
        super().__init__()
        self.centres = torch.tensor([[0.2, 0.5], [0.75, 0.85]], dtype=torch.float64)
        self.radii = torch.tensor([0.15, 0.12], dtype=torch.float64)
        angle, u = torch.rand(2, count, generator=generator(3), dtype=torch.float64)
        away = 0.1 * u.sqrt() * torch.stack([(2 * math.pi * angle).cos(), (2 * math.pi * angle).sin()])
        self.images = (self.centres[0] + away.T).view(count, 1, 1, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        places = images.flatten(1)
        outside = (places[:, None] - self.centres).square().sum(dim=2) - self.radii.square()
        return two_logits(-10 * (places[:, 0] - 0.6)), outside.amin(dim=1)


def exact(toy: Slopes | TwoDiscs, steps: int = 400) -> Loop:
    """Steps of eps/50 for 400 of them, longer ones for fewer."""
    step = toy.eps * 8 / steps
    return Loop(norm="l2", eps=toy.eps, step=step, steps=steps, kappa=toy.kappa, rounds=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Digits:
    """A small bundle on digits, and images to attack."""

    target: GraphTarget
    calibration: Calibration
    bytes8: np.ndarray
    """(N, 8, 8, 1) clean, to be attacked."""
    images: Tensor
    """The same, (N, 1, 8, 8) in [0, 1]."""
    labels: Tensor
    clean_bytes8: np.ndarray
    """Other clean images, those of the second calibration."""
