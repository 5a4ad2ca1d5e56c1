"""Masks that need no network: dark pixels, and all that lies outside a box."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["BoxMasks", "PixelMasks", "centre_box"]


@dataclass(frozen=True, kw_only=True)
class PixelMasks:
    """Background is what is darker than a level in every channel, and further than some pixels from what is not.

    For digits and other bright things on black.
    """

    level: float = 0.1
    dilate: int = 0
    """Pixels, diagonals too, by which the foreground grows."""
    is_stored = False
    network = ""

    def __call__(self, images: Tensor) -> Tensor:
        """See Masks."""
        bright = (images.detach() >= self.level).any(dim=1, keepdim=True)
        if self.dilate:
            side = 2 * self.dilate + 1
            bright = F.max_pool2d(bright.float(), side, stride=1, padding=self.dilate) > 0
        return ~bright


@dataclass(frozen=True, kw_only=True)
class BoxMasks:
    """Background is what lies outside a box in the middle."""

    share: float = 0.75
    """Height and width of the box, beside the image's."""
    is_stored = False
    network = ""

    def __call__(self, images: Tensor) -> Tensor:
        """See Masks."""
        count, _, height, width = images.shape
        return ~centre_box(height, width, self.share).to(images.device).expand(count, 1, height, width)


def centre_box(height: int, width: int, share: float) -> Tensor:
    """(H, W), True inside; each side is the image's times the share, rounded, at least a pixel."""
    inside = []
    for length in (height, width):
        side = max(1, round(share * length))
        places, first = torch.arange(length), (length - side) // 2
        inside.append((places >= first) & (places < first + side))
    return inside[0][:, None] & inside[1][None, :]
