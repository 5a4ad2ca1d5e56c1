"""What a peer's detector is: a score that larger means more suspicious, and what it was fitted on."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from service.detection.types import Bytes8, Float64s
from service.errors import SetupError
from training.attacks.rounding import from_8_bit
from training.detectors import CleanViews
from training.models import Classifier

__all__ = ["BATCH", "FitData", "Guarded", "Material", "Peer", "Scorer", "TorchScorer", "Unfit", "rows_of"]

BATCH = 128

FitData = Literal["nothing", "clean", "clean and PGD"]
"""What a detector learns from; none learns from a test image, nor from any attack but PGD."""

_FEWEST_FOOLED = 10


class Unfit(SetupError):
    """A peer that cannot be measured here, and why; the others still can."""


class Scorer(Protocol):
    """A fitted detector."""

    def score(self, images: Bytes8) -> Float64s:
        """(N, H, W, C) images to (N,) scores, each image by itself; larger = more suspicious."""


class TorchScorer(nn.Module, ABC):
    """A fitted detector whose score has a gradient, so that an attack may be aimed at it."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images in [0, 1] to (N,) scores, each image by itself; larger = more suspicious."""

    def score(self, images: Bytes8) -> Float64s:
        """See Scorer."""
        with torch.no_grad():
            parts = [self(from_8_bit(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
        return np.asarray(torch.cat(parts).double().numpy())


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """What peers are fitted on, all of it apart from the images that judge them and from those of the thresholds."""

    model: Classifier
    """The classifier that is protected, in eval mode, on the CPU."""
    fit: CleanViews
    """Clean images of the fit part."""
    calm: Tensor
    """(n, C, H, W) clean images of the calibration part that the classifier reads rightly."""
    noisy: Tensor
    """The same with Gaussian noise as long in L2 as each image's attack."""
    attacked: Tensor
    """The same under PGD at the training budget, all in [0, 1] and of 8 bits."""
    fooled: Tensor
    """(n,) whether the classifier misreads the attacked version."""
    seed: int

    def attacks_that_fool(self) -> Tensor:
        """The attacked images that are misread, (m, C, H, W).

        Raises:
            Unfit: there are too few to learn from.
        """
        count = int(self.fooled.sum())
        if count < _FEWEST_FOOLED:
            raise Unfit(
                f"expected {_FEWEST_FOOLED} calibration images or more that PGD gets misread, got {count} of "
                f"{len(self.calm)}; enlarge data.calibration in the recipe"
            )
        return self.attacked[self.fooled]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A detector as its authors publish it, and how it is spoken of."""

    name: str
    title: str
    source: str
    fit_data: FitData
    fit: Callable[[Material], Scorer]
    """Raises Unfit where a library or images are missing."""


class Guarded(nn.Module):
    """A classifier with a peer's detector, as adaptive attacks aim at it (`training.attacks.adaptive.Target`)."""

    def __init__(self, model: nn.Module, scorer: TorchScorer) -> None:
        super().__init__()
        self.model = model
        self.scorer = scorer

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) images in [0, 1] to (N, L) logits and (N,) scores."""
        return self.model(images), self.scorer(images)


def rows_of(describe: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What a function of images gives for (n, C, H, W) of them, (n, ...), batch by batch and without gradients."""
    with torch.no_grad():
        return torch.cat([describe(batch) for batch in torch.split(images, BATCH)])
