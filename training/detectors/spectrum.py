"""Radially binned log-power spectrum of the input image."""

from typing import ClassVar, Self

import torch
from torch import Tensor

from service.detection.types import FlagReason
from training.detectors.band_power import BandPower, ring_count, ring_numbers
from training.detectors.detector import CleanViews, Detector
from training.detectors.mahalanobis import MahalanobisDistance

__all__ = ["RadialSpectrum", "radial_power"]


class RadialSpectrum(Detector):
    """Squared Mahalanobis distance of the radial log-power spectrum to that of clean images.

    Two-sided: an attack that adds high frequencies and one that smooths are both noticed.

    Source: the radial profile is common in spectral detection (Harder et al. 2021, arXiv 2103.03000, use the whole
        magnitude spectrum); the clean-only Gaussian on it is ours.
    """

    kind: ClassVar[str] = "spectrum"
    meaning: ClassVar[str] = "the frequency spectrum of the image is less usual"
    reason: ClassVar[FlagReason] = FlagReason.INPUT_SPECTRUM

    def __init__(self, power: BandPower, distance: MahalanobisDistance) -> None:
        """Takes what gives the (N, C B) spectra and the distance that was fitted on clean ones."""
        super().__init__()
        self.power = power
        self.distance = distance

    @classmethod
    def fit(cls, clean: CleanViews) -> Self:
        """One mean and one Ledoit-Wolf covariance over all classes."""
        power = radial_power(*clean.images.shape[-2:])
        return cls(power, MahalanobisDistance.of(clean.described(power)))

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        distances: Tensor = self.distance(self.power(images))
        return distances


def radial_power(height: int, width: int) -> BandPower:
    """Log power in rings of equal width around frequency zero."""
    return BandPower(ring_numbers(height, width) == torch.arange(ring_count(height, width))[:, None, None])
