"""Co-occurrence of noise residuals, as in steganalysis."""

from itertools import product
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.detection.types import FlagReason
from service.errors import SetupError
from training.detectors.detector import CleanViews, Detector
from training.detectors.mahalanobis import MahalanobisDistance

__all__ = ["KERNELS", "Cooccurrence", "Residual"]

KERNELS = (
    ((0.0, 0.0, 0.0), (0.0, -1.0, 1.0), (0.0, 0.0, 0.0)),
    ((0.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 1.0, 0.0)),
    ((0.0, 0.0, 0.0), (1.0, -2.0, 1.0), (0.0, 0.0, 0.0)),
    ((0.0, 1.0, 0.0), (0.0, -2.0, 0.0), (0.0, 1.0, 0.0)),
    ((-1.0, 2.0, -1.0), (2.0, -4.0, 2.0), (-1.0, 2.0, -1.0)),
)
"""First and second differences along rows and along columns, and the second difference of both."""
LIMIT = 2
"""Steps at which residuals are cut off; their levels are -LIMIT ... LIMIT."""
SMALLEST = 4
"""Pixels of the shorter side from which a residual has neighbours both ways."""
LEAST_STEP = 1 / 255
FITTED_ON = 4000
"""Images, at most: describing one costs as much as a small classifier."""


class Cooccurrence(nn.Module):
    """Square roots of how often two levels of a residual are neighbours, for each channel and kernel.

    A residual is divided by its kernel's step, cut off softly by tanh and shared among the levels by a softmax of
    squared distances, so that the gradient does not vanish as it would through rounding. Pairs that differ in sign or
    order count as one, which leaves 9 of 25. The square root makes the variance of a share depend less on its size.
    """

    kernels: Tensor
    steps: Tensor
    levels: Tensor
    folding: Tensor

    def __init__(self, steps: Tensor) -> None:
        """Takes the step of each kernel, (F,), in units of pixel values."""
        super().__init__()
        self.register_buffer("kernels", torch.tensor(KERNELS)[:, None])  # (F, 1, 3, 3)
        self.register_buffer("steps", steps.float()[:, None, None])
        self.register_buffer("levels", torch.arange(-LIMIT, LIMIT + 1).float()[:, None, None])
        self.register_buffer("folding", _folding())

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to (N, C F 9)."""
        found = residuals(images, self.kernels) / self.steps  # (N C, F, H', W')
        cut = LIMIT * torch.tanh(found / LIMIT)
        # Half a step as deviation: -(x - b)^2 / (2 / 4).
        shares = torch.softmax(-2 * (cut[:, :, None] - self.levels).square(), dim=2)  # (N C, F, levels, H', W')
        pairs = _joint(shares[..., :, :-1], shares[..., :, 1:]) + _joint(shares[..., :-1, :], shares[..., 1:, :])
        folded = (pairs / 2).flatten(2) @ self.folding  # (N C, F, 9)
        positions = found.shape[-2] * found.shape[-1]
        roots = (folded + 1 / positions).sqrt()  # a square root has no gradient at 0
        return roots.reshape(-1, images.shape[1] * roots.shape[1] * roots.shape[2])


class Residual(Detector):
    """Squared Mahalanobis distance of the residuals' co-occurrence to that of clean images.

    Two-sided, since there is no saying which pairs of levels an attack makes more frequent; a smoothed image is noticed
    as well as a noisy one. The step of a kernel is half the root mean square of its residual on clean images, because
    the residual that an attack leaves is small on photographs and large on drawn digits.

    Source: Fridrich & Kodovsky 2012, "Rich models for steganalysis of digital images" (residuals, truncation,
        co-occurrence, folding by symmetry); used against adversarial images by Liu et al. 2019 (arXiv 1809.06031),
        there with a classifier trained on attacks. Soft levels and the clean-only Gaussian are ours.
    """

    kind: ClassVar[str] = "residual"
    meaning: ClassVar[str] = "the differences of neighbouring pixels are less usual"
    reason: ClassVar[FlagReason] = FlagReason.OUT_OF_DISTRIBUTION

    def __init__(self, cooccurrence: Cooccurrence, distance: MahalanobisDistance) -> None:
        """Takes what describes images and the distance that was fitted on clean ones."""
        super().__init__()
        self.cooccurrence = cooccurrence
        self.distance = distance

    @classmethod
    def fit(cls, clean: CleanViews) -> Self:
        """The steps, then one mean and one Ledoit-Wolf covariance over all classes.

        Raises:
            SetupError: the images are too small or too few.
        """
        height, width = clean.images.shape[-2:]
        if min(height, width) < SMALLEST:
            raise SetupError(
                f"residual: expected images of {SMALLEST} x {SMALLEST} pixels or more, got {height} x {width}; "
                "leave it out of export.detectors"
            )
        some, kernels = clean.at_most(FITTED_ON), torch.tensor(KERNELS)[:, None]
        squares = some.described(lambda images: residuals(images, kernels).square().mean(dim=(2, 3)))  # (n C, F)
        steps = squares.double().mean(dim=0).sqrt() / 2
        cooccurrence = Cooccurrence(steps.clamp(min=LEAST_STEP))
        return cls(cooccurrence, MahalanobisDistance.of(some.described(cooccurrence)))

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        distances: Tensor = self.distance(self.cooccurrence(images))
        return distances


def residuals(images: Tensor, kernels: Tensor) -> Tensor:
    """(N C, F, H - 2, W - 2): each channel of (N, C, H, W) images through each of (F, 1, 3, 3) kernels."""
    return F.conv2d(images.flatten(0, 1)[:, None], kernels)


def _joint(first: Tensor, second: Tensor) -> Tensor:
    """(M, F, A, B): mean over positions of the product of two (M, F, levels, h, w) shares."""
    positions = first.shape[-2] * first.shape[-1]
    return first.flatten(3) @ second.flatten(3).transpose(2, 3) / positions


def _folding() -> Tensor:
    """(levels^2, folded): adds up the pairs of levels that differ in sign or order only."""
    pairs = list(product(range(-LIMIT, LIMIT + 1), repeat=2))
    same = [max((a, b), (b, a), (-a, -b), (-b, -a)) for a, b in pairs]
    kinds = sorted(set(same))
    return torch.tensor([[float(kind == one) for kind in kinds] for one in same])
