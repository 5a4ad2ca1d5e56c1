"""Between 8-bit images (N, H, W, C) and tensors (N, C, H, W) in [0, 1], keeping to the budget.

The service sees 8-bit images, so an attack counts only after rounding, and
rounding counts against its budget.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.attacks.ball import BALL_NORMS, BallNorm

__all__ = ["from_8_bit", "levels", "nearest_8_bit", "to_8_bit", "toward_zero"]

_NOISE = 5e-5
"""Levels: more than float32 puts between a whole number k and 255 times its k / 255."""


def from_8_bit(images: Tensor | NDArray[np.uint8]) -> Tensor:
    """8-bit images (N, H, W, C) as floats (N, C, H, W) in [0, 1], channels last in memory."""
    tensor = torch.as_tensor(images)
    if tensor.dtype != torch.uint8 or tensor.ndim != 4:
        raise ValueError(f"expected uint8 (N, H, W, C), got {tensor.dtype} {tuple(tensor.shape)}")
    return tensor.permute(0, 3, 1, 2).float() / 255


def nearest_8_bit(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in [0, 1] rounded to uint8 (N, H, W, C)."""
    return (images.detach().float() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def levels(eps: float) -> int:
    """The Linf budget in whole 8-bit levels, rounded down: 8/255 gives 8, 0.3 gives 76."""
    return math.floor(255 * eps + 1e-9)


def toward_zero(changes: Tensor) -> Tensor:
    """Changes in levels, cut to whole ones; one that is whole but for the rounding of float32 stays whole."""
    nearest = changes.round()
    return torch.where((changes - nearest).abs() < _NOISE, nearest, changes.trunc())


def to_8_bit(images: Tensor, clean: Tensor, norm: BallNorm, eps: float) -> Tensor:
    """Attacked images as 8-bit images that keep to the budget.

    Args:
        images: (N, C, H, W) in [0, 1], attacked.
        clean: (N, C, H, W), the clean images, exact multiples of 1/255.
        norm: linf rounds to the nearest level within the integer budget; the others round every change toward zero.
        eps: the budget; images of the others must already keep to it.

    Returns:
        uint8 (N, H, W, C).
    """
    before = (clean.detach().double() * 255).round()
    changes = images.detach().double() * 255 - before
    if norm == "linf":
        bound = levels(eps)
        changes = changes.round().clamp(-bound, bound)
    elif norm in BALL_NORMS:
        changes = toward_zero(changes)
    else:
        raise ValueError(f"norm: expected one of {', '.join(BALL_NORMS)}, got {norm!r}")
    return (before + changes).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
