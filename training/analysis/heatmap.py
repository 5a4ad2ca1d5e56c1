"""Which frequencies confuse a network: its error when one Fourier basis image is added.

Source: Yin et al. 2019 (arXiv 1906.08988), figures 3 and 4.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from service.detection.types import Float64s

__all__ = ["HeatMap", "basis_image", "distinct_frequencies", "heat_map", "rank_correlation", "strength"]

Frequency = tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class HeatMap:
    """Share of wrong answers when the basis image of each frequency is added."""

    strength: float
    """v, the L2 length of what is added to each channel."""
    images: int
    clean_error: float
    """Of the same images with nothing added."""
    frequencies: int
    """How many differ; the others are conjugates and look the same."""
    errors: Float64s
    """(H, W), zero frequency at (H // 2, W // 2)."""
    correlation: float | None
    """Spearman's, with the spectrum of the attack's change, over the distinct frequencies; None for a flat map."""


def distinct_frequencies(height: int, width: int) -> tuple[Frequency, ...]:
    """One (row, column) of each pair k and -k, in the order of an unshifted DFT; 514 at 32 x 32."""
    every = ((row, column) for row in range(height) for column in range(width))
    return tuple(k for k in every if k <= _partner(k, height, width))


def _partner(k: Frequency, height: int, width: int) -> Frequency:
    return -k[0] % height, -k[1] % width


def basis_image(height: int, width: int, k: Frequency) -> Float64s:
    """U_k, (H, W): a real wave of unit L2 length with energy at the frequencies k and -k only."""
    rows, columns = np.arange(height) * k[0] / height, np.arange(width) * k[1] / width
    wave = np.cos(2 * math.pi * (rows[:, None] + columns))
    return np.asarray(wave / np.linalg.norm(wave))


def strength(height: int, width: int) -> float:
    """The v of a size, sqrt(H W) / 8: 4 at 32 x 32, and always a change of 1/8 of the range, root mean square."""
    return math.sqrt(height * width) / 8


def heat_map(
    accuracy: Callable[[Float64s], float],
    images: Float64s,
    change: Float64s,
    *,
    seed: int,
    tick: Callable[[int, int], None] = lambda done, of: None,
) -> HeatMap:
    """The error on clip(x + v s U_k) for every distinct k, with a random sign s for each image and channel.

    Args:
        accuracy: of images (N, H, W, C) in [0, 1].
        images: clean ones, as `accuracy` takes them.
        change: (H, W), the spectrum of the attack's change to compare with, zero frequency in the middle.
        seed: of the signs.
        tick: is told how many frequencies are done, and of how many.
    """
    count, height, width, channels = images.shape
    random = np.random.default_rng(seed)
    errors = np.zeros((height, width))
    waves = list(_waves(height, width))
    for done, (k, wave) in enumerate(waves):
        tick(done, len(waves))
        signs = random.choice([-1.0, 1.0], size=(count, 1, 1, channels))
        error = 1 - accuracy((images + signs * wave[:, :, None]).clip(0, 1))
        errors[k] = errors[_partner(k, height, width)] = error
    frequencies = [k for k, _ in waves]
    places = tuple(np.array(frequencies).T)
    return HeatMap(
        strength=strength(height, width),
        images=count,
        clean_error=1 - accuracy(images),
        frequencies=len(waves),
        errors=np.fft.fftshift(errors),
        correlation=rank_correlation(errors[places], np.fft.ifftshift(change)[places]),
    )


def _waves(height: int, width: int) -> Iterator[tuple[Frequency, Float64s]]:
    for k in distinct_frequencies(height, width):
        yield k, strength(height, width) * basis_image(height, width, k)


def rank_correlation(left: Float64s, right: Float64s) -> float | None:
    """Spearman's rank correlation of two (n,); equal values share their mean rank. None where one is constant."""
    ours, theirs = _ranks(left), _ranks(right)
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return None
    return float(np.corrcoef(ours, theirs)[0, 1])


def _ranks(values: Float64s) -> Float64s:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[place])
