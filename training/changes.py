"""Benign changes of clean images: what cameras, encoders and resizers do, and noise that nobody aimed."""

import io
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageFilter

from service.detection.types import Bytes8

__all__ = [
    "Change",
    "blurred",
    "by_image",
    "cropped",
    "gaussian",
    "jpeg",
    "moved",
    "noisy",
    "of_length",
    "scaled",
    "shrunk",
    "to_bytes",
    "turned",
]

Change: TypeAlias = Callable[[Bytes8, np.random.Generator], Bytes8]
"""(N, H, W, C) to the same shape."""

_MODES = {1: "L", 3: "RGB"}


def noisy(draw: Callable[[tuple[int, ...], np.random.Generator], np.ndarray]) -> Change:
    """Adds noise in units of the [0, 1] image."""
    return lambda images, generator: to_bytes(images / 255 + draw(images.shape, generator))


def gaussian(deviation: float) -> Change:
    """Adds normal noise of this deviation in units of the [0, 1] image."""
    return noisy(lambda shape, generator: generator.normal(scale=deviation, size=shape))


def of_length(noise: np.ndarray, length: float) -> np.ndarray:
    """Each image's noise scaled to a Euclidean length."""
    norms = np.sqrt((noise**2).sum(axis=(1, 2, 3), keepdims=True))
    return np.asarray(noise * (length / np.maximum(norms, 1e-12)))


def scaled(factor: float, *, around: float) -> Change:
    """Pixel values drawn towards a level in [0, 1], or away from it."""
    return lambda images, _: to_bytes((images / 255 - around) * factor + around)


def moved(down: int, across: int) -> Change:
    """By whole pixels, each less than the image is long there; the edge is repeated."""

    def move(images: Bytes8, _: np.random.Generator) -> Bytes8:
        _, height, width, _ = images.shape
        rows = (np.arange(height) - down).clip(0, height - 1)
        return images[:, rows][:, :, (np.arange(width) - across).clip(0, width - 1)]

    return move


def to_bytes(values: np.ndarray) -> Bytes8:
    """Images in [0, 1], and what lies beyond, to 8 bits."""
    rounded: Bytes8 = np.rint(255 * values.clip(0, 1)).astype(np.uint8)
    return rounded


def by_image(change: Callable[[Image.Image], Image.Image]) -> Change:
    """Pillow's change of one image at a time."""

    def all_of_them(images: Bytes8, _: np.random.Generator) -> Bytes8:
        mode = _MODES[images.shape[3]]
        shape = images.shape[1:]
        changed = [change(Image.fromarray(image.squeeze(2) if mode == "L" else image)) for image in images]
        return np.stack([np.asarray(image.convert(mode), dtype=np.uint8).reshape(shape) for image in changed])

    return all_of_them


def jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    """Through the encoder and back."""

    def through_jpeg(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return through_jpeg


def blurred(deviation: float) -> Callable[[Image.Image], Image.Image]:
    """By a Gaussian of this deviation in pixels."""
    return lambda image: image.filter(ImageFilter.GaussianBlur(deviation))


def cropped(top: float, left: float, bottom: float, right: float) -> Callable[[Image.Image], Image.Image]:
    """Cut by these shares of its sides, and stretched to its size again."""

    def crop(image: Image.Image) -> Image.Image:
        box = (left * image.width, top * image.height, (1 - right) * image.width, (1 - bottom) * image.height)
        return image.resize(image.size, Image.Resampling.BILINEAR, box=box)

    return crop


def shrunk(factor: float) -> Callable[[Image.Image], Image.Image]:
    """To this share of its sides, and stretched to its size again."""

    def there_and_back(image: Image.Image) -> Image.Image:
        size = (math.ceil(image.width * factor), math.ceil(image.height * factor))
        return image.resize(size, Image.Resampling.BILINEAR).resize(image.size, Image.Resampling.BILINEAR)

    return there_and_back


def turned(degrees: float) -> Callable[[Image.Image], Image.Image]:
    """About the centre; the corners that come into view repeat the image's own border colour."""

    def turn(image: Image.Image) -> Image.Image:
        border = np.concatenate([np.asarray(image)[0], np.asarray(image)[-1]])
        fill = np.rint(border.mean(axis=0)).astype(int)
        colour = tuple(fill.tolist()) if fill.ndim else int(fill)
        return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=colour)

    return turn
