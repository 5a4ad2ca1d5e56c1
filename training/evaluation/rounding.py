"""Attacked images of a minimum-norm attack as 8 bits; `training.attacks.rounding` is for those with a budget."""

import torch
from torch import Tensor, nn

__all__ = ["predict", "to_8_bit_fooling"]


def to_8_bit_fooling(model: nn.Module, attacked: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
    """Rounds to the nearest of 256 levels, or away from the clean image where the nearest no longer fools.

    Such an attack stops right behind the boundary, so that rounding alone would undo about half of its successes and
    flatter the classifier. It has no budget that the larger change could break.

    Args:
        attacked: (N, C, H, W) in [0, 1].
        clean: the same shape, of 8-bit images divided by 255.
        labels: (N,) true classes.

    Returns:
        (N, H, W, C) uint8.
    """
    levels, origin = attacked * 255, torch.round(clean * 255)
    nearest = torch.round(levels)
    away = torch.where(levels > origin + 1e-3, torch.ceil(levels), torch.floor(levels))  # below 1e-3: float noise
    away = torch.where((levels - origin).abs() <= 1e-3, origin, away)
    fools = predict(model, nearest / 255) != labels
    chosen = torch.where(fools[:, None, None, None], nearest, away)
    return chosen.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def predict(model: nn.Module, images: Tensor) -> Tensor:
    """Labels of (N, C, H, W) images, (N,)."""
    with torch.no_grad():
        return torch.as_tensor(model(images)).argmax(dim=1)
