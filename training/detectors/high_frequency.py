"""Power where clean images have little of it, which is at high frequencies."""

import math
from typing import ClassVar, Self

import torch
from torch import Tensor

from service.detection.types import FlagReason
from service.errors import SetupError
from training.detectors.band_power import BandPower, frequencies, ring_count, ring_numbers
from training.detectors.detector import CleanViews, Detector
from training.detectors.mahalanobis import clean_gaussian

__all__ = ["HighFrequency", "luminance_first"]

SMALLEST = 4
"""Pixels of the shorter side from which there is a ring beyond half of Nyquist."""


class HighFrequency(Detector):
    """How far the log powers of the bands are moved the way that added white noise moves them, in deviations.

    Noise of the same power at all frequencies raises the log power of a band by the more, the less power clean images
    have there. The score is the linear one that tells such a rise best from what clean images vary by, so that a band
    counts for what is left when the other bands have predicted it. One-sided: beyond half of Nyquist a weight below 0
    becomes 0, so that noise there never makes an image less suspicious. What takes contrast from an image, as an attack
    of large eps on drawn digits does, lowers the score.

    The bands are whole rings up to half of Nyquist, and beyond it each ring's horizontal, vertical and diagonal part.
    Colour images are split into luminance and two colour differences first, since photographs and JPEG carry little
    fine detail in the latter, and an attack as much as in the former.

    Source: the matched filter, or Fisher's discriminant for classes of the same covariance, on log powers; ours.
        Spectral detection as in Harder et al. 2021 (arXiv 2103.03000) learns the direction from attacked images.
    """

    kind: ClassVar[str] = "high_frequency"
    meaning: ClassVar[str] = "the image's fine detail is stronger beside its coarse content"
    reason: ClassVar[FlagReason] = FlagReason.INPUT_SPECTRUM

    mixing: Tensor
    weights: Tensor
    constant: Tensor

    def __init__(self, power: BandPower, mixing: Tensor, weights: Tensor, constant: Tensor) -> None:
        """Takes the (C, C) change of colours, and the (C B,) weights of log powers with what is added to their sum."""
        super().__init__()
        self.power = power
        self.register_buffer("mixing", mixing.float())
        self.register_buffer("weights", weights.float())
        self.register_buffer("constant", constant.float())

    @classmethod
    def fit(cls, clean: CleanViews) -> Self:
        """One mean and one Ledoit-Wolf covariance of the log powers over all classes.

        Raises:
            SetupError: the images are too small or too few.
        """
        channels, height, width = clean.images.shape[1:]
        if min(height, width) < SMALLEST:
            raise SetupError(
                f"high_frequency: expected images of {SMALLEST} x {SMALLEST} pixels or more, got {height} x {width}; "
                "leave it out of export.detectors"
            )
        lower, upper = _bands(height, width)
        power, mixing = BandPower(torch.cat([lower, upper])), luminance_first(channels)
        mean, whitening = clean_gaussian(clean.described(lambda images: power(_mixed(images, mixing))))
        rise = (-mean).exp() * mixing.square().sum(dim=1).double().repeat_interleave(len(lower) + len(upper))
        weights = whitening @ (whitening.T @ rise)
        is_upper = (torch.arange(len(lower) + len(upper)) >= len(lower)).repeat(channels)
        weights[is_upper] = weights[is_upper].clamp(min=0)
        weights /= torch.linalg.solve_triangular(whitening, weights[:, None], upper=True).norm()
        return cls(power, mixing, weights, -(mean @ weights))

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        powers: Tensor = self.power(_mixed(images, self.mixing))  # (N, C B)
        return powers @ self.weights + self.constant


def luminance_first(channels: int) -> Tensor:
    """(C, C) matrix that turns RGB into Y, Cb and Cr without their offsets; other numbers of channels stay as they are.

    Source: ITU-R BT.601, as JPEG uses it.
    """
    if channels != 3:
        return torch.eye(channels)
    red, green, blue = 0.299, 0.587, 0.114
    luminance = torch.tensor([red, green, blue])
    blueness = (torch.tensor([0.0, 0.0, 1.0]) - luminance) / (2 * (1 - blue))
    redness = (torch.tensor([1.0, 0.0, 0.0]) - luminance) / (2 * (1 - red))
    return torch.stack([luminance, blueness, redness])


def _mixed(images: Tensor, mixing: Tensor) -> Tensor:
    return (mixing @ images.flatten(2)).reshape(images.shape)


def _bands(height: int, width: int) -> tuple[Tensor, Tensor]:
    """(B1, H, W) whole rings up to half of Nyquist and (B2, H, W) thirds of the rings beyond it, bool."""
    vertical, horizontal = frequencies(height, width)
    angle = torch.atan2(vertical.abs(), horizontal.abs())  # 0: changes from column to column; pi/2: from row to row
    directions = (angle < math.pi / 6, (angle >= math.pi / 6) & (angle <= math.pi / 3), angle > math.pi / 3)
    ring, rings = ring_numbers(height, width), ring_count(height, width)
    half = (rings - 1) // 2
    lower = [ring == number for number in range(half + 1)]
    upper = [(ring == number) & direction for number in range(half + 1, rings) for direction in directions]
    return torch.stack(lower), torch.stack([band for band in upper if band.any()])
