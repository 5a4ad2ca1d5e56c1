"""What a data set is: arrays of 8-bit images with labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import SetupError

__all__ = ["DataSet", "ImageSet", "empty_like"]

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images with their labels."""

    images: Bytes
    """(N, H, W, C)."""
    labels: Integers
    """(N,), class numbers from 0."""
    tracks: Integers | None = None
    """(N,) or None; images of one track show the same object and are not independent."""

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise SetupError(f"images: expected uint8 (N, H, W, C), got {self.images.dtype} {self.images.shape}")
        for name, values in (("labels", self.labels), ("tracks", self.tracks)):
            if values is not None and (values.dtype != np.int64 or values.shape != (len(self.images),)):
                raise SetupError(f"{name}: expected int64 ({len(self.images)},), got {values.dtype} {values.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Integers) -> "ImageSet":
        """The images at these positions, in this order."""
        tracks = None if self.tracks is None else self.tracks[indices]
        return ImageSet(images=self.images[indices], labels=self.labels[indices], tracks=tracks)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A named set as its makers publish it."""

    name: str
    class_names: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    """Empty for a set without a test split of its own; training.data.splits then cuts one."""

    def __post_init__(self) -> None:
        if not len(self.train):
            raise SetupError(f"{self.name}: expected training images, got none; add some")
        for part in ("train", "test"):
            self._check(part, getattr(self, part))

    def _check(self, part: str, images: ImageSet) -> None:
        if images.images.shape[1:] != self.train.images.shape[1:]:
            raise SetupError(
                f"{self.name}: expected {part} images of shape {self.train.images.shape[1:]} as in train, "
                f"got {images.images.shape[1:]}; bring all images to one size and number of channels"
            )
        outside = (images.labels < 0) | (images.labels >= len(self.class_names))
        if outside.any():
            raise SetupError(
                f"{self.name}: expected {part} labels in 0 to {len(self.class_names) - 1}, "
                f"got {images.labels[outside][0]} at image {np.flatnonzero(outside)[0]}; "
                "number the classes from 0 and name each of them"
            )


def empty_like(images: ImageSet) -> ImageSet:
    """No images, of the same shape and with tracks where these have them."""
    return images.take(np.zeros(0, dtype=np.int64))
