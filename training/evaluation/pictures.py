"""Small pictures of one image before and after an attack, as PNG in data addresses."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from service.detection.types import Bytes8, Float64s

__all__ = ["Example", "difference", "png_address", "spectrum", "spectrum_pair"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One image before and after one attack, with what the bundle says of both."""

    attack: str
    clean: Bytes8
    """(H, W, C)."""
    attacked: Bytes8
    """(H, W, C)."""
    truth: str
    clean_label: str
    attacked_label: str
    clean_p: float
    attacked_p: float
    succeeded: bool


def difference(clean: Bytes8, attacked: Bytes8) -> tuple[Bytes8, float]:
    """The change on mid-grey, (H, W, C), magnified so that the largest fills the range, and by which factor."""
    change = attacked.astype(np.float64) - clean.astype(np.float64)
    largest = float(np.abs(change).max())
    factor = 127.0 / largest if largest else 1.0
    return np.rint(128 + change * factor).clip(0, 255).astype(np.uint8), factor


def spectrum(image: Bytes8) -> Float64s:
    """Log magnitude of the discrete Fourier transform, (H, W), low frequencies in the middle; colours averaged."""
    grey = image.astype(np.float64).mean(axis=2)
    return np.asarray(np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(grey - grey.mean())))))


def spectrum_pair(clean: Bytes8, attacked: Bytes8) -> tuple[Bytes8, Bytes8]:
    """Both spectra on one brightness scale, each (H, W, 1)."""
    pair = np.stack([spectrum(clean), spectrum(attacked)])
    scaled = 255 * (pair - pair.min()) / max(float(np.ptp(pair)), 1e-9)
    both = np.rint(scaled).astype(np.uint8)[..., None]
    return both[0], both[1]


def png_address(image: Bytes8) -> str:
    """`data:image/png;base64,...` of (H, W, 1 or 3)."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
