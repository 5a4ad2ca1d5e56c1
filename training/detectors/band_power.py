"""Log power of images in bands of spatial frequencies."""

import math

import torch
from torch import Tensor, nn

__all__ = ["QUANTISATION_POWER", "BandPower", "frequencies", "ring_count", "ring_numbers"]

QUANTISATION_POWER = 1 / (12 * 255**2)
"""Power of rounding to 8 bits, uniform in +-1/510: below it a band holds no signal, so the logarithm starts there."""


class BandPower(nn.Module):
    """Log of the mean power of each channel in each band.

    The DFT is two matrix products with fixed cosine and sine matrices, which every execution provider can run.
    """

    rows: Tensor
    columns: Tensor
    bands: Tensor

    def __init__(self, members: Tensor) -> None:
        """Takes (B, H, W) bool, the frequencies of each band in the order of numpy's FFT; no band is empty."""
        super().__init__()
        self.register_buffer("rows", _cosines_and_sines(members.shape[1]))
        self.register_buffer("columns", _cosines_and_sines(members.shape[2]).T.contiguous())
        averages = members.flatten(1).double()
        averages /= averages.sum(dim=1, keepdim=True)
        self.register_buffer("bands", averages.T.float().contiguous())  # (H W, B)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to (N, C B)."""
        height, width = images.shape[-2:]
        parts = self.rows @ images @ self.columns  # (N, C, 2 H, 2 W): cos cos, cos sin; sin cos, sin sin
        real = parts[..., :height, :width] - parts[..., height:, width:]
        imaginary = parts[..., :height, width:] + parts[..., height:, :width]
        power = (real.square() + imaginary.square()).flatten(2) / (height * width)  # (N, C, H W)
        log_power: Tensor = (power @ self.bands + QUANTISATION_POWER).log()  # (N, C, B)
        return log_power.flatten(1)


def frequencies(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Vertical (H, 1) and horizontal (1, W) frequency of each coefficient, in cycles a pixel, signed."""
    vertical = torch.fft.fftfreq(height, dtype=torch.float64)
    horizontal = torch.fft.fftfreq(width, dtype=torch.float64)
    return vertical[:, None], horizontal[None]


def ring_count(height: int, width: int) -> int:
    """Rings of equal width around frequency zero; ring 0 is the mean, the last one Nyquist of the shorter side."""
    return min(height, width) // 2 + 1


def ring_numbers(height: int, width: int) -> Tensor:
    """(H, W) int64: the ring of each frequency; the last one takes the corners beyond Nyquist."""
    vertical, horizontal = frequencies(height, width)
    radius = (vertical.square() + horizontal.square()).sqrt()
    last = ring_count(height, width) - 1
    return (radius * 2 * last).round().long().clamp(max=last)


def _cosines_and_sines(size: int) -> Tensor:
    """(2 size, size): the DFT matrix's cosines above its sines."""
    steps = torch.arange(size, dtype=torch.float64)
    angles = 2 * math.pi / size * torch.outer(steps, steps)
    return torch.cat([angles.cos(), angles.sin()]).float()
