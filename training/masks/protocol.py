"""What a mask is."""

from typing import Protocol

from torch import Tensor

__all__ = ["Masks"]


class Masks(Protocol):
    """Tells the background of clean images: a function of each image alone, whose repr says all that it depends on."""

    @property
    def is_stored(self) -> bool:
        """Whether it knows the images of one data set only, untouched, so that a mask moves along with its image."""

    @property
    def network(self) -> str:
        """Digest of the network that it is made by; empty for none."""

    def __call__(self, images: Tensor) -> Tensor:
        """True on the background, (N, 1, H, W), of clean images (N, C, H, W) in [0, 1]."""
