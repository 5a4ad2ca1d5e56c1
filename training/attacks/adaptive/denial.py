"""Attack on availability: a clean image is changed until it is rejected."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.attacks.adaptive.loop import Loop
from training.attacks.adaptive.rules import Selective
from training.attacks.adaptive.target import Target, Turned, held

__all__ = ["Denial", "Raised"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Raised:
    """The most suspicious version of each image."""

    images: Tensor
    """(N, C, H, W) in [0, 1]."""
    scores: Tensor
    """(N,) their suspicion."""
    trace: Tensor
    """(R, S + 1, N) suspicion in restart r after s steps."""

    def rejected(self, threshold: float) -> Tensor:
        """(N,) whether the image is more suspicious than the threshold."""
        return self.scores > threshold


@dataclass(frozen=True, kw_only=True)
class Denial:
    """The loop with the suspicion raised, whatever the label.

    Source: the rejection of slightly changed images that Chen et al. 2023 (arXiv 2305.01139) count as errors.
    """

    loop: Loop

    def __call__(self, target: Target, images: Tensor, generator: torch.Generator) -> Raised:
        """Raises the suspicion of images (N, C, H, W) in [0, 1].

        Raises:
            SetupError: see Loop.run.
        """
        with held(target):
            lowest = self.loop.run(Selective(), Turned(target), images, _always, generator)
        return Raised(images=lowest.images, scores=-lowest.scores, trace=-lowest.trace)


def _always(logits: Tensor) -> Tensor:
    """Margins that are crossed whatever the logits, so that only the suspicion is left."""
    return torch.full((len(logits),), -torch.inf).to(logits)
