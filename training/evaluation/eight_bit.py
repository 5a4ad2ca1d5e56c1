"""What an attack must aim at so that its images still fool once they are rounded to 8 bits."""

from dataclasses import dataclass

from torch import Tensor, nn

from training.attacks.ball import BallNorm
from training.attacks.rounding import from_8_bit, to_8_bit

__all__ = ["EightBit", "Settled"]


class EightBit(nn.Module):
    """A classifier that sees its images rounded to 8 bits; gradients pass through the rounding unchanged.

    An attack that stops at the first image that fools would stop right behind the boundary, and rounding would undo
    part of its successes. Aimed at this, it goes on until the rounded image fools.

    Source: the straight-through gradient of Athalye et al. 2018 (arXiv 1802.00420), their BPDA.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W) in [0, 1]."""
        rounded = (images.detach() * 255).round() / 255
        logits: Tensor = self.model(rounded + (images - images.detach()))  # the bracket is 0 and carries the gradient
        return logits


@dataclass(frozen=True)
class Settled:
    """Gives attacked images (N, C, H, W) as `to_8_bit` rounds them, as floats again; the second ones are clean."""

    norm: BallNorm
    eps: float

    def __call__(self, attacked: Tensor, clean: Tensor) -> Tensor:
        """Images of 8 bits within the budget."""
        return from_8_bit(to_8_bit(attacked, clean, self.norm, self.eps))
