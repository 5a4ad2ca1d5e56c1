"""A small U-Net that sees a noisy image, its time and its class."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.generators.schedule import TIMES

__all__ = ["UNet"]

STAGES = (1, 2, 4)
"""Channels of each stage, in widths; each but the first halves height and width."""
GROUPS = 4
FREQUENCIES = 16


class UNet(nn.Module):
    """Two residual blocks a stage down and one up, joined by skips; scales and shifts by time and class in each block.

    Source: Ho et al. 2020 (arXiv 2006.11239) and Nichol and Dhariwal 2021 (arXiv 2102.09672), narrower, with fewer
    blocks and no attention.
    """

    def __init__(self, *, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.label = nn.Embedding(classes, 4 * width)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        sizes = [width * stage for stage in STAGES]
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            nn.ModuleList([_Block(before, size, 4 * width), _Block(size, size, 4 * width)])
            for before, size in zip([width, *sizes], sizes, strict=False)
        )
        self.up = nn.ModuleList(
            _Block(deeper + size, size, 4 * width) for deeper, size in zip(sizes[:0:-1], sizes[-2::-1], strict=True)
        )
        self.last = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1))
        nn.init.zeros_(self.last[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.last[-1].bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """The prediction of v (n, C, H, W) for x_t (n, C, H, W), times (n,) from 0 to TIMES and classes (n,)."""
        known = F.silu(self.time(_waves(times)) + self.label(labels))
        maps, skips = self.first(images), []
        for number, blocks in enumerate(self.down):
            maps = F.avg_pool2d(maps, 2, ceil_mode=True) if number else maps
            first, second = cast(nn.ModuleList, blocks)
            maps = second(first(maps, known), known)
            skips.append(maps)
        for block in self.up:
            skips.pop()
            maps = F.interpolate(maps, size=skips[-1].shape[2:], mode="nearest")
            maps = block(torch.cat([maps, skips[-1]], dim=1), known)
        found: Tensor = self.last(maps)
        return found


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; what is known of the image scales and shifts the maps between them."""

    def __init__(self, inputs: int, outputs: int, known: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, inputs), nn.GroupNorm(GROUPS, outputs)
        self.convolution1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.convolution2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.known = nn.Linear(known, 2 * outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor, known: Tensor) -> Tensor:
        scale, shift = self.known(known)[:, :, None, None].chunk(2, dim=1)
        found = self.convolution1(F.silu(self.norm1(maps)))
        found = self.convolution2(F.silu(self.norm2(found) * (1 + scale) + shift))
        return self.shortcut(maps) + found  # type: ignore[no-any-return]


def _waves(times: Tensor) -> Tensor:
    """(n, 2 FREQUENCIES) sines and cosines of times (n,)."""
    rates = torch.exp(torch.linspace(0, math.log(TIMES), FREQUENCIES, device=times.device))
    angles = times.float()[:, None] / TIMES * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
