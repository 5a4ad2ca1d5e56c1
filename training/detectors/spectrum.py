"""Radially binned log-power spectrum of the input image."""

import math
from typing import ClassVar, Self

import torch
from torch import Tensor

from service.detection.types import FlagReason
from service.errors import SetupError
from training.detectors.detector import CleanViews, Detector, shrunk_whitening

__all__ = ["RadialPower", "RadialSpectrum"]

QUANTISATION_POWER = 1 / (12 * 255**2)
"""Power of rounding to 8 bits, uniform in +-1/510: below it a band holds no signal, so the logarithm starts there."""


class RadialPower(torch.nn.Module):
    """Mean log power of each channel in rings of equal width around frequency zero.

    The DFT is two matrix products with fixed cosine and sine matrices, which every execution provider can run.
    """

    rows: Tensor
    columns: Tensor
    rings: Tensor

    def __init__(self, height: int, width: int) -> None:
        """Takes the size of the images in pixels."""
        super().__init__()
        self.register_buffer("rows", _cosines_and_sines(height))
        self.register_buffer("columns", _cosines_and_sines(width).T.contiguous())
        self.register_buffer("rings", _ring_averages(height, width))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to (N, C B), B rings."""
        height, width = images.shape[-2:]
        parts = self.rows @ images @ self.columns  # (N, C, 2 H, 2 W): cos cos, cos sin; sin cos, sin sin
        real = parts[..., :height, :width] - parts[..., height:, width:]
        imaginary = parts[..., :height, width:] + parts[..., height:, :width]
        power = (real.square() + imaginary.square()).flatten(2) / (height * width)  # (N, C, H W)
        log_power: Tensor = (power @ self.rings + QUANTISATION_POWER).log()  # (N, C, B)
        return log_power.flatten(1)


def _cosines_and_sines(size: int) -> Tensor:
    """(2 size, size): the DFT matrix's cosines above its sines."""
    steps = torch.arange(size, dtype=torch.float64)
    angles = 2 * math.pi / size * torch.outer(steps, steps)
    return torch.cat([angles.cos(), angles.sin()]).float()


def _ring_averages(height: int, width: int) -> Tensor:
    """(H W, B): averages the power over each ring; the last one takes the corners beyond Nyquist."""
    vertical = torch.fft.fftfreq(height, dtype=torch.float64)
    horizontal = torch.fft.fftfreq(width, dtype=torch.float64)
    radius = (vertical[:, None].square() + horizontal.square()).sqrt().flatten()  # (H W,), cycles a pixel
    bins = min(height, width) // 2
    ring = (radius * 2 * bins).round().long().clamp(max=bins)  # 0 is the mean, `bins` is Nyquist
    members = torch.nn.functional.one_hot(ring, bins + 1).double()
    return (members / members.sum(dim=0)).float()


class RadialSpectrum(Detector):
    """Squared Mahalanobis distance of the radial log-power spectrum to that of clean images.

    Two-sided: an attack that adds high frequencies and one that smooths are both noticed.

    Source: the radial profile is common in spectral detection (Harder et al. 2021, arXiv 2103.03000, use the whole
        magnitude spectrum); the clean-only Gaussian on it is ours.
    """

    kind: ClassVar[str] = "spectrum"
    meaning: ClassVar[str] = "the frequency spectrum of the image is less usual"
    reason: ClassVar[FlagReason] = FlagReason.INPUT_SPECTRUM

    mean: Tensor
    whitening: Tensor

    def __init__(self, power: RadialPower, mean: Tensor, whitening: Tensor) -> None:
        """Takes the (C B,) mean of clean spectra and the (C B, C B) whitening of their covariance."""
        super().__init__()
        self.power = power
        self.register_buffer("mean", mean.float())
        self.register_buffer("whitening", whitening.float())

    @classmethod
    def fit(cls, clean: CleanViews) -> Self:
        """One mean and one Ledoit-Wolf covariance over all classes."""
        if len(clean.images) < 2:
            raise SetupError(f"expected 2 clean images or more to fit the spectrum on, got {len(clean.images)}")
        power = RadialPower(*clean.images.shape[-2:])
        spectra = power(clean.images).double()
        mean = spectra.mean(dim=0)
        return cls(power, mean, shrunk_whitening(spectra - mean))

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        spectra: Tensor = self.power(images)  # (N, C B)
        return ((spectra - self.mean) @ self.whitening).square().sum(dim=1)
