"""Benign changes of clean images: what cameras, encoders and resizers do, and noise that nobody aimed."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from service.detection.types import Bytes8
from training.evaluation.suite import Budgets

__all__ = ["Shift", "shifts"]

_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One way in which images arrive that nobody attacked."""

    name: str
    title: str
    is_mild: bool
    """Whether a pipeline does it without anybody noticing; a promise on false alarms should nearly survive it."""
    change: Callable[[Bytes8, np.random.Generator], Bytes8]
    """(N, H, W, C) to the same shape."""


def shifts(budgets: Budgets) -> tuple[Shift, ...]:
    """Every shift, mild ones first; the noise of attack size takes its size from the budgets.

    Noise as large as an attack, but without aim, tells whether a detector sees attacks or merely noise.
    """
    linf, l2 = budgets.linf, budgets.l2
    return (
        Shift(name="none", title="Untouched", is_mild=True, change=lambda images, _: images),
        Shift(name="jpeg_95", title="JPEG, quality 95", is_mild=True, change=_by_image(_jpeg(95))),
        Shift(name="brightness_105", title="5 % brighter", is_mild=True, change=_scaled(1.05, around=0.0)),
        Shift(name="brightness_95", title="5 % darker", is_mild=True, change=_scaled(0.95, around=0.0)),
        Shift(name="contrast_105", title="5 % more contrast", is_mild=True, change=_scaled(1.05, around=0.5)),
        Shift(name="noise_1", title="Gaussian noise, σ = 1/255", is_mild=True, change=_gaussian(1 / 255)),
        Shift(name="blur_40", title="Gaussian blur, σ = 0.4 pixels", is_mild=True, change=_by_image(_blurred(0.4))),
        Shift(name="rotation_2", title="Turned by 2°", is_mild=True, change=_by_image(_turned(2))),
        Shift(name="jpeg_75", title="JPEG, quality 75", is_mild=False, change=_by_image(_jpeg(75))),
        Shift(name="jpeg_50", title="JPEG, quality 50", is_mild=False, change=_by_image(_jpeg(50))),
        Shift(name="brightness_130", title="30 % brighter", is_mild=False, change=_scaled(1.3, around=0.0)),
        Shift(name="brightness_70", title="30 % darker", is_mild=False, change=_scaled(0.7, around=0.0)),
        Shift(name="contrast_70", title="30 % less contrast", is_mild=False, change=_scaled(0.7, around=0.5)),
        Shift(name="blur_100", title="Gaussian blur, σ = 1 pixel", is_mild=False, change=_by_image(_blurred(1.0))),
        Shift(name="resize_75", title="Shrunk to 3/4 and back", is_mild=False, change=_by_image(_shrunk(0.75))),
        Shift(name="rotation_10", title="Turned by 10°", is_mild=False, change=_by_image(_turned(10))),
        Shift(
            name="noise_signs",
            title=f"Random signs of the L∞ budget, {255 * linf:.3g}/255",
            is_mild=False,
            change=_noisy(lambda shape, generator: linf * (2.0 * generator.integers(0, 2, shape) - 1)),
        ),
        Shift(
            name="noise_uniform",
            title=f"Uniform noise within the L∞ budget, {255 * linf:.3g}/255",
            is_mild=False,
            change=_noisy(lambda shape, generator: generator.uniform(-linf, linf, shape)),
        ),
        Shift(
            name="noise_l2",
            title=f"Gaussian noise of the L2 budget, {l2:.3g}",
            is_mild=False,
            change=_noisy(lambda shape, generator: _of_length(generator.normal(size=shape), l2)),
        ),
    )


def _noisy(
    draw: Callable[[tuple[int, ...], np.random.Generator], np.ndarray],
) -> Callable[[Bytes8, np.random.Generator], Bytes8]:
    """Adds noise in units of the [0, 1] image."""
    return lambda images, generator: _to_bytes(images / 255 + draw(images.shape, generator))


def _gaussian(deviation: float) -> Callable[[Bytes8, np.random.Generator], Bytes8]:
    return _noisy(lambda shape, generator: generator.normal(scale=deviation, size=shape))


def _of_length(noise: np.ndarray, length: float) -> np.ndarray:
    """Each image's noise scaled to a Euclidean length."""
    norms = np.sqrt((noise**2).sum(axis=(1, 2, 3), keepdims=True))
    return np.asarray(noise * (length / np.maximum(norms, 1e-12)))


def _scaled(factor: float, *, around: float) -> Callable[[Bytes8, np.random.Generator], Bytes8]:
    """Pixel values drawn towards a level in [0, 1], or away from it."""
    return lambda images, _: _to_bytes((images / 255 - around) * factor + around)


def _to_bytes(values: np.ndarray) -> Bytes8:
    rounded: Bytes8 = np.rint(255 * values.clip(0, 1)).astype(np.uint8)
    return rounded


def _by_image(change: Callable[[Image.Image], Image.Image]) -> Callable[[Bytes8, np.random.Generator], Bytes8]:
    """Pillow's change of one image at a time."""

    def all_of_them(images: Bytes8, _: np.random.Generator) -> Bytes8:
        mode = _MODES[images.shape[3]]
        shape = images.shape[1:]
        changed = [change(Image.fromarray(image.squeeze(2) if mode == "L" else image)) for image in images]
        return np.stack([np.asarray(image.convert(mode), dtype=np.uint8).reshape(shape) for image in changed])

    return all_of_them


def _jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def through_jpeg(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return through_jpeg


def _blurred(deviation: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.filter(ImageFilter.GaussianBlur(deviation))


def _shrunk(factor: float) -> Callable[[Image.Image], Image.Image]:
    def there_and_back(image: Image.Image) -> Image.Image:
        size = (math.ceil(image.width * factor), math.ceil(image.height * factor))
        return image.resize(size, Image.Resampling.BILINEAR).resize(image.size, Image.Resampling.BILINEAR)

    return there_and_back


def _turned(degrees: float) -> Callable[[Image.Image], Image.Image]:
    """About the centre; the corners that come into view repeat the image's own border colour."""

    def turn(image: Image.Image) -> Image.Image:
        border = np.concatenate([np.asarray(image)[0], np.asarray(image)[-1]])
        fill = np.rint(border.mean(axis=0)).astype(int)
        colour = tuple(fill.tolist()) if fill.ndim else int(fill)
        return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=colour)

    return turn
