"""Where in the spectrum an attack puts its change."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.detection.types import Float64s
from training.analysis.lowpass import bands, central

__all__ = ["PerturbationSpectrum", "energy_share", "perturbation_spectrum", "radial_profile", "rings"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PerturbationSpectrum:
    """Mean spectra over images and channels, each (H, W), zero frequency at (H // 2, W // 2)."""

    clean: Float64s
    """log10 of the magnitude."""
    attacked: Float64s
    """The same of the attacked images."""
    change: Float64s
    """Magnitude of the change over its largest value away from frequency zero, where it may exceed 1: an attack on
    images with black borders can only brighten those. All 0 when nothing was changed."""
    profile: Float64s
    """(B,) mean of `change` in rings around frequency zero."""
    radii: Float64s
    """(B,) radius of each ring; 1 is the Nyquist frequency of the shorter side."""
    bands: tuple[int, ...]
    """b of each share below."""
    energy_shares: tuple[float | None, ...]
    """E_b, see `energy_share`."""


def perturbation_spectrum(clean: Float64s, attacked: Float64s) -> PerturbationSpectrum:
    """Spectra of images (N, H, W, C) in [0, 1] before and after an attack.

    Source: the three pictures of Huang et al. 2022 (arXiv 2212.12732); profile and E_b are ours.
    """
    height, width = clean.shape[1:3]
    change = _magnitudes(attacked - clean).mean(axis=(0, 3))
    waves = change.copy()
    waves[height // 2, width // 2] = 0
    change /= max(float(waves.max()), 1e-12)
    ring = rings(height, width)
    smaller = bands(min(height, width))[1:] + _quarter(min(height, width))
    return PerturbationSpectrum(
        clean=_mean_log(clean),
        attacked=_mean_log(attacked),
        change=change,
        profile=radial_profile(change, ring),
        radii=np.arange(ring.max() + 1) / ring.max(),
        bands=smaller,
        energy_shares=tuple(energy_share(attacked - clean, band) for band in smaller),
    )


def _quarter(side: int) -> tuple[int, ...]:
    """The eight of a 32 x 32 image: what a network that looks at shapes needs most."""
    return (side // 4,) if side // 4 not in (0, *bands(side)) else ()


def _magnitudes(images: Float64s) -> Float64s:
    spectra = np.abs(np.fft.fft2(images, axes=(1, 2)))
    return np.asarray(np.fft.fftshift(spectra, axes=(1, 2)))


def _mean_log(images: Float64s) -> Float64s:
    """log10 of the magnitudes, those below what rounding to 8 bits alone would give counting as that."""
    height, width = images.shape[1:3]
    least = math.sqrt(height * width / 12) / 255
    return np.asarray(np.log10(np.maximum(_magnitudes(images), least)).mean(axis=(0, 3)))


def rings(height: int, width: int) -> NDArray[np.int64]:
    """The ring that each centred frequency belongs to, (H, W); the last one takes the corners beyond Nyquist."""
    rows = np.fft.fftshift(np.fft.fftfreq(height))
    columns = np.fft.fftshift(np.fft.fftfreq(width))
    last = min(height, width) // 2
    radii = np.hypot(rows[:, None], columns) * 2 * last  # cycles a pixel, then rings
    return np.asarray(np.rint(radii).clip(0, last).astype(np.int64))


def radial_profile(spectrum: Float64s, ring: NDArray[np.int64]) -> Float64s:
    """Mean of a spectrum (H, W) in each ring, (B,)."""
    totals = np.bincount(ring.ravel(), weights=spectrum.ravel())
    return np.asarray(totals / np.bincount(ring.ravel()))


def energy_share(changes: Float64s, band: int) -> float | None:
    """E_b: share of |F(change)|^2 in the central b x b, zero frequency included.

    Args:
        changes: (N, H, W, C), attacked minus clean.
        band: b.

    Returns:
        The mean over all images that were changed; None when none was.
    """
    energy = np.square(_magnitudes(changes)).sum(axis=3)  # (N, H, W)
    total = energy.sum(axis=(1, 2))
    changed = total > 0
    if not changed.any():
        return None
    _, height, width, _ = changes.shape
    inside = energy[:, central(height, width, band)].sum(axis=1)
    return float((inside[changed] / total[changed]).mean())
