"""Low-pass filters, and how accuracy falls when high frequencies go.

Source: Huang et al. 2022 (arXiv 2212.12732): LPF_b(x) = Re F^-1(M_b * shift(F(x))) per channel, M_b = 1 on the
central b x b frequencies.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.detection.types import Float64s

__all__ = ["LowPass", "LowPassCurve", "bands", "central", "low_pass", "low_pass_curve"]

LowPass = Literal["published", "symmetric"]


@dataclass(frozen=True, kw_only=True)
class LowPassCurve:
    """Share of images read rightly after each filter."""

    bands: tuple[int, ...]
    """b of each filter; the first keeps everything."""
    clean: tuple[float, ...]
    attacked: tuple[float, ...]
    """The attack saw the unfiltered model."""


def bands(side: int) -> tuple[int, ...]:
    """Five filters for images whose shorter side is this long, from all frequencies downwards.

    32 gives the paper's 32, 28, 24, 20, 16; 28 gives 28 to 12, and 8 gives 8 to 4.
    """
    step = math.ceil(side / 8)
    return tuple(band for band in range(side, side - 5 * step, -step) if band > 0)


def central(height: int, width: int, band: int, *, kind: LowPass = "published") -> NDArray[np.bool_]:
    """Which frequencies are kept, (H, W), zero frequency at (H // 2, W // 2).

    Args:
        height: in pixels.
        width: in pixels.
        band: b along the shorter side; the longer one keeps the same share.
        kind: `published` keeps -b/2 .. b/2 - 1, whose first row and column lack their conjugate partners when b is
            even; `symmetric` keeps |k| < b/2. Both keep everything at the full b.
    """
    shorter = min(height, width)
    rows, columns = (_central_line(side, round(band * side / shorter), kind) for side in (height, width))
    return np.outer(rows, columns)


def _central_line(side: int, band: int, kind: LowPass) -> NDArray[np.bool_]:
    frequencies = np.arange(side) - side // 2
    if band >= side:  # the Nyquist frequency is its own partner, so it may stay
        return np.ones(side, dtype=bool)
    if kind == "symmetric":
        return np.abs(frequencies) < band / 2
    first = -(band // 2)
    return (frequencies >= first) & (frequencies < first + band)


def low_pass(images: Float64s, band: int, *, kind: LowPass = "published") -> Float64s:
    """Images (N, H, W, C) without their high frequencies; values may leave [0, 1] a little."""
    _, height, width, _ = images.shape
    kept = central(height, width, band, kind=kind)
    spectra = np.fft.fftshift(np.fft.fft2(images, axes=(1, 2)), axes=(1, 2))
    filtered = np.fft.ifft2(np.fft.ifftshift(spectra * kept[:, :, None], axes=(1, 2)), axes=(1, 2))
    return np.asarray(filtered.real)


def low_pass_curve(
    accuracy: Callable[[Float64s], float], clean: Float64s, attacked: Float64s, *, kind: LowPass
) -> LowPassCurve:
    """Accuracies over all of `bands`.

    Args:
        accuracy: of filtered images (N, H, W, C), which are neither rounded nor clipped.
        clean: (N, H, W, C) in [0, 1].
        attacked: the same images attacked, rounded to 8 bits before they are filtered.
        kind: of filter.
    """
    tried = bands(min(clean.shape[1:3]))
    return LowPassCurve(
        bands=tried,
        clean=tuple(accuracy(low_pass(clean, band, kind=kind)) for band in tried),
        attacked=tuple(accuracy(low_pass(attacked, band, kind=kind)) for band in tried),
    )
