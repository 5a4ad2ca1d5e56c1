"""The transformations that an image has to fool a network through, each differentiable.

Source: Wang et al. 2021 (NeurIPS), as their code has them; brightness is cut at 1 and the crop begins at a pixel.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["TRANSFORMS"]

_BRIGHTER = 0.1
_GAMMA = 1.3
_CROPPED = 0.1
"""Share of height and width that goes on each side."""


def _cropped(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    top, left = round(_CROPPED * height), round(_CROPPED * width)
    inner = images[:, :, top : height - top, left : width - left]
    return F.interpolate(inner, size=(height, width), mode="bilinear", align_corners=True)


TRANSFORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda images: images,
    "mirrored": lambda images: images.flip(3),
    "upside_down": lambda images: images.flip(2),
    "brighter": lambda images: (images + _BRIGHTER).clamp_max(1),
    "gamma": lambda images: torch.clamp(images, 0, 1) ** _GAMMA,
    "cropped": _cropped,
}
"""Images (N, C, H, W) in [0, 1] to images of the same shape and range."""
