"""What a generator is, and how its training is set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from service.detection.types import Bytes8, Integers
from training.checks import at_least, require

__all__ = ["Generator", "Learning"]


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How a generator with weights learns and draws; those without have nothing to set."""

    steps: int = 6000
    """Steps of training."""
    batch_size: int = 64
    width: int = 16
    """Channels of the first stage."""
    learning_rate: float = 2e-3
    """The peak of a one-cycle schedule."""
    sampler: str = "ddim"
    """ddim draws without further noise, ddpm with it."""
    sampling_steps: int = 25
    """Passes of the network for an image."""
    weights: Path | None = None
    """A file that keeps what was learned: the same call goes on from there, or only draws."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("batch_size", 1), ("width", 4), ("sampling_steps", 1), ("seed", 0)):
            at_least(low, f"--{name.replace('_', '-')}", getattr(self, name))
        require(self.width % 4 == 0, "--width", "a multiple of 4", self.width)
        require(self.learning_rate > 0, "--learning-rate", "a number above 0", self.learning_rate)
        require(self.sampler in ("ddim", "ddpm"), "--sampler", "ddim or ddpm", self.sampler)


class Generator(Protocol):
    """Draws images of given classes."""

    def sample(self, labels: Integers, random: np.random.Generator) -> Bytes8:
        """Images (n, H, W, C) of the classes (n,)."""
