"""Masks that the user made, one for each image of a data set."""

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.errors import SetupError
from training.attacks.rounding import nearest_8_bit
from training.data.types import DataSet

__all__ = ["StoredMasks", "read_masks"]

Bytes = NDArray[np.uint8]


class StoredMasks:
    """Finds the mask of an image by the image itself; of equal images the first one's mask is taken."""

    is_stored = True
    network = ""

    def __init__(self, masks: Mapping[bytes, Bytes], path: Path, digest: str) -> None:
        """Takes masks (H, W), 1 on the background, by the images' digests, and the file that they are from."""
        self._masks = masks
        self._path = path
        self._digest = digest

    def __call__(self, images: Tensor) -> Tensor:
        """See Masks.

        Raises:
            SetupError: an image that is not of the data set, such as an augmented one.
        """
        found = []
        for image in nearest_8_bit(images).cpu().numpy():
            mask = self._masks.get(_digest(image))
            if mask is None:
                raise SetupError(
                    f"{self._path}: expected a mask of every image, got an image that the data set does not have; make "
                    "the file for this data set"
                )
            found.append(mask)
        return torch.from_numpy(np.stack(found).astype(bool))[:, None].to(images.device)

    def __repr__(self) -> str:
        return f"StoredMasks({self._digest})"


def read_masks(path: Path, dataset: DataSet) -> StoredMasks:
    """Masks from an .npz file with the arrays train_masks and, where the set has test images, test_masks.

    Each is (N, H, W), in the order of the set's own images; 1 (or True) is background, 0 foreground.

    Raises:
        SetupError: the file is missing or damaged, or its masks are not those of this data set.
    """
    try:
        content = path.read_bytes()
        with np.load(path, allow_pickle=False) as arrays:
            given = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, AttributeError, zlib.error, zipfile.BadZipFile) as error:
        raise SetupError(f"{path}: expected an .npz file of masks, got: {error}") from error
    masks: dict[bytes, Bytes] = {}
    for part in ("train", "test"):
        images = getattr(dataset, part).images
        if not len(images):
            continue
        for image, mask in zip(images, _checked(path, f"{part}_masks", given, images.shape[:3]), strict=True):
            masks.setdefault(_digest(image), mask)
    return StoredMasks(masks, path, hashlib.sha256(content).hexdigest()[:16])


def _checked(path: Path, name: str, given: Mapping[str, NDArray[np.generic]], shape: tuple[int, ...]) -> Bytes:
    if name not in given:
        raise SetupError(f"{path}: expected the array {name}, found {', '.join(sorted(given)) or 'none'}")
    masks = given[name]
    if masks.dtype not in (np.dtype(bool), np.dtype(np.uint8)) or masks.shape != shape:
        raise SetupError(
            f"{path}: {name}: expected bool or uint8 {shape}, a mask for each image, got {masks.dtype} {masks.shape}"
        )
    values = masks.astype(np.uint8)
    if values.max(initial=0) > 1:
        raise SetupError(f"{path}: {name}: expected 0 (foreground) and 1 (background), got {values.max()}")
    return values


def _digest(image: Bytes) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()
