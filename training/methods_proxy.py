"""The section of a recipe on generated images beside the real ones (training/proxy)."""

from dataclasses import dataclass
from typing import ClassVar

from training.checks import at_least, require

__all__ = ["ProxyConfig"]


@dataclass(frozen=True, kw_only=True)
class ProxyConfig:
    """Training on a proxy distribution too (PORT): part of each batch are images that a generator made."""

    SECTION: ClassVar[str] = "proxy"

    set: str = ""
    """An .npz file of generated images, in the data folder or a path; empty trains on real images alone."""
    gamma: float = 0.5
    """Weight of the loss on real images; that on generated ones has 1 - gamma. 1 trains on real images alone."""
    share: float = 0.5
    """Of generated images in each batch: how many there are, and nothing of how much they weigh."""
    images: int = 0
    """Generated images that are used, evenly chosen from the file; 0 is all of them."""
    labeller: str = ""
    """A finished run or a bundle whose classifier labels a set that has no labels; its training images must be none of
    this recipe's held-out ones."""

    def __post_init__(self) -> None:
        require(0 <= self.gamma <= 1, "proxy.gamma", "a number from 0 to 1", self.gamma)
        require(0 < self.share < 1, "proxy.share", "a number between 0 and 1", self.share)
        at_least(0, "proxy.images", self.images)

    @property
    def is_on(self) -> bool:
        """Whether any generated image is trained on."""
        return bool(self.set) and self.gamma < 1
