"""Spatial attack: the image is shifted and turned, no value is changed on purpose."""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.attacks.objectives import margin
from training.attacks.protocol import undisturbed
from training.attacks.rounding import from_8_bit, nearest_8_bit
from training.checks import at_least

__all__ = ["Spatial", "moved"]


@dataclass(frozen=True, kw_only=True)
class Spatial:
    """Of a grid of shifts and turns the one whose 8-bit image has the largest logit margin of a wrong class.

    Source: Engstrom et al. 2019 (arXiv 1712.02779), their grid search of 5 x 5 shifts and 31 turns, by the margin in
    the place of the cross-entropy. What comes in from outside of the image is black.
    """

    shift: float = 3.0
    """Pixels, at most, along each axis."""
    turn: float = 15.0
    """Degrees, at most."""
    shifts: int = 5
    """Of each axis; odd, so that no shift is one of them."""
    turns: int = 31

    def __post_init__(self) -> None:
        for name in ("shifts", "turns"):
            at_least(1, f"spatial: {name}", getattr(self, name))

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1], whole multiples of 1/255; draws nothing."""
        images = images.detach()
        found = images.clone()
        worst = torch.full((len(images),), -torch.inf, device=images.device)
        with undisturbed(model), torch.no_grad():
            for down, across, turn in itertools.product(
                _spread(self.shift, self.shifts), _spread(self.shift, self.shifts), _spread(self.turn, self.turns)
            ):
                tried = moved(images, down=down, across=across, turn=turn)
                margins = margin(model(tried), labels)
                better = margins > worst
                found[better], worst = tried[better], torch.where(better, margins, worst)
        return found


def _spread(largest: float, count: int) -> list[float]:
    """So many values from -largest to largest."""
    return [0.0] if count == 1 else [largest * (2 * number / (count - 1) - 1) for number in range(count)]


def moved(images: Tensor, *, down: float, across: float, turn: float) -> Tensor:
    """Images (N, C, H, W) turned about their middle by degrees, then shifted by pixels, and rounded to 8 bits."""
    height, width = images.shape[2:]
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    # Where each pixel comes from, in the coordinates of grid_sample, whose sides run from -1 to 1.
    x, y = -2 * across / width, -2 * down / height
    rows = [
        [cosine, sine * height / width, cosine * x + sine * height / width * y],
        [-sine * width / height, cosine, -sine * width / height * x + cosine * y],
    ]
    affine = torch.tensor(rows, dtype=images.dtype, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    made = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return from_8_bit(nearest_8_bit(made)).to(images)
