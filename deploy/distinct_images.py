"""Images like those that people send, as many as are asked for and no two alike.

Drawn from a pool of images where there is one. Else colour: windows of two photographs at several sizes, mirrored or
not; grey: two digits of one class, laid over each other. Photographs and digits are those that scikit-learn brings.
Each image is in a light of its own, with the noise of a camera.
"""

import hashlib

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from sklearn.datasets import load_sample_images

from service.detection.manifest import InputShape
from service.detection.types import Bytes8
from service.errors import SetupError
from training.data.digits import digits

__all__ = ["DistinctImages"]

SIZES = (1.0, 0.5, 0.25)
"""Of a photograph; a window at the smallest shows four times as far."""
LIGHT = (0.6, 1.3)
NOISE = 3
"""Levels up or down at most."""
TOGETHER = 1024
"""Made at once."""
TIRED = 100
"""Rounds without a new image after which there are none left."""


class DistinctImages:
    """Never gives an image twice."""

    def __init__(self, shape: InputShape, seed: int, pool: Bytes8 | None = None) -> None:
        """Of a bundle's shape.

        Args:
            pool: (N, H, W, C) to draw from, each once before any comes again; None for what scikit-learn brings.

        Raises:
            SetupError: it is neither grey nor colour, or larger than the photographs are at their smallest.
        """
        self._shape = shape
        self._draws = np.random.default_rng(seed)
        self._given: set[bytes] = set()
        self._waiting = np.empty(0, np.int64)
        self._pool = pool
        if pool is None:
            self._load()

    def _load(self) -> None:
        height, width = self._shape.height, self._shape.width
        if self._shape.channels == 1:
            found = digits().train
            resized = np.stack([_resized(image[..., 0], height, width) for image in found.images])
            self._of_class = [resized[found.labels == label] for label in np.unique(found.labels)]
        elif self._shape.channels == 3:
            photos = load_sample_images().images
            self._photos = [
                _resized(photo, round(photo.shape[0] * size), round(photo.shape[1] * size))
                for photo in photos
                for size in SIZES
            ]
            most = np.min([photo.shape[:2] for photo in self._photos], axis=0)
            if (most < (height, width)).any():
                raise SetupError(f"expected images of {most[0]} x {most[1]} at most, got {height} x {width}")
        else:
            raise SetupError(f"expected images of 1 or 3 channels, got {self._shape.channels}")

    def take(self, count: int) -> Bytes8:
        """(count, H, W, C) that were not given before.

        Raises:
            SetupError: so many there are not.
        """
        shape = self._shape
        parts = [np.empty((0, shape.height, shape.width, shape.channels), np.uint8)]
        missing, tired = count, 0
        while missing:
            made = self._made(min(TOGETHER, missing))
            is_new = np.array([self._is_new(image) for image in made])
            parts.append(made[is_new])
            missing -= len(parts[-1])
            tired = 0 if is_new.any() else tired + 1
            if tired == TIRED:
                raise SetupError(f"expected {count} more images, found {count - missing} that differ from those before")
        return np.concatenate(parts)

    def _is_new(self, image: Bytes8) -> bool:
        known = len(self._given)
        self._given.add(hashlib.blake2b(image.tobytes(), digest_size=8).digest())
        return len(self._given) > known

    def _made(self, count: int) -> Bytes8:
        if self._pool is not None:
            images = self._drawn(self._pool, count)
        else:
            images = self._windows(count) if self._shape.channels == 3 else self._overlaid(count)
        light = self._draws.uniform(*LIGHT, (count, 1, 1, 1)).astype(np.float32)
        noise = self._draws.integers(-NOISE, NOISE + 1, images.shape, dtype=np.int8)
        return np.asarray((images * light + noise).clip(0, 255).astype(np.uint8))

    def _drawn(self, pool: Bytes8, count: int) -> Bytes8:
        while len(self._waiting) < count:
            self._waiting = np.concatenate([self._waiting, self._draws.permutation(len(pool))])
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return np.asarray(pool[taken])

    def _windows(self, count: int) -> Bytes8:
        height, width = self._shape.height, self._shape.width
        made = np.empty((count, height, width, 3), np.uint8)
        which = self._draws.integers(0, len(self._photos), count)
        for number, photo in enumerate(self._photos):
            places = np.flatnonzero(which == number)
            windows = sliding_window_view(photo, (height, width), axis=(0, 1))  # (rows, columns, C, H, W)
            top, left = (self._draws.integers(0, size, len(places)) for size in windows.shape[:2])
            made[places] = windows[top, left].transpose(0, 2, 3, 1)
        mirrored = self._draws.random(count) < 0.5
        made[mirrored] = made[mirrored, :, ::-1]
        return made

    def _overlaid(self, count: int) -> Bytes8:
        made = np.empty((count, self._shape.height, self._shape.width, 1), np.float32)
        which = self._draws.integers(0, len(self._of_class), count)
        for number, images in enumerate(self._of_class):
            places = np.flatnonzero(which == number)
            one, other = images[self._draws.integers(0, len(images), (2, len(places)))]
            share = self._draws.random((len(places), 1, 1), np.float32)
            made[places, ..., 0] = one * share + other * (1 - share)
        return made.astype(np.uint8)


def _resized(image: Bytes8, height: int, width: int) -> Bytes8:
    return np.asarray(Image.fromarray(image).resize((width, height)))
