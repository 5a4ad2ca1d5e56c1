"""The transformations that an image has to fool a network through, each differentiable.

Source: Wang et al. 2021 (NeurIPS), as their code has them; brightness is cut at 1 and the crop begins at a pixel.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

__all__ = ["TRANSFORMS"]

_BRIGHTER = 0.1
_GAMMA = 1.3
_CROPPED = 0.1
"""Share of height and width that goes on each side."""


def _cropped(images: Tensor) -> Tensor:
    rows, columns = (_stretching(side).to(images) for side in images.shape[2:])
    return rows @ images @ columns.T


def _stretching(side: int) -> Tensor:
    """(side, side), which reads the inner pixels of a line at as many places, linearly between two.

    A matrix, because torch's own resizing has no deterministic gradient on CUDA.
    """
    cut = round(_CROPPED * side)
    places = torch.linspace(cut, side - 1 - cut, side)
    return (1 - (places[:, None] - torch.arange(side)).abs()).clamp_min(0)


TRANSFORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda images: images,
    "mirrored": lambda images: images.flip(3),
    "upside_down": lambda images: images.flip(2),
    "brighter": lambda images: (images + _BRIGHTER).clamp_max(1),
    "gamma": lambda images: torch.clamp(images, 0, 1) ** _GAMMA,
    "cropped": _cropped,
}
"""Images (N, C, H, W) in [0, 1] to images of the same shape and range."""
