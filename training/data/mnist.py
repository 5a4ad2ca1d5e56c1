"""MNIST and its kin, from the IDX files that their makers publish, packed or not."""

import gzip
import struct
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import SetupError
from training.data.roots import need_file, need_root
from training.data.types import DataSet, ImageSet

__all__ = ["mnist", "read_idx"]

UNSIGNED_BYTE = 0x08


def mnist(root: Path | None) -> DataSet:
    """MNIST from root/mnist or root itself: 60,000 + 10,000 grey images of 28x28."""
    folder = need_root("mnist", root)
    names = tuple(str(digit) for digit in range(10))
    return DataSet(name="mnist", class_names=names, train=_part(folder, "train"), test=_part(folder, "t10k"))


def _part(folder: Path, part: str) -> ImageSet:
    images = read_idx(_find(folder, f"{part}-images-idx3-ubyte"), axes=3)
    labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"), axes=1)
    return ImageSet(images=images[..., None], labels=labels.astype(np.int64))


def _find(folder: Path, name: str) -> Path:
    places = [folder / "mnist", folder]
    return need_file("mnist", *(place / f"{name}{ending}" for place in places for ending in (".gz", "")))


def read_idx(path: Path, *, axes: int) -> NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes.

    Raises:
        SetupError: unreadable, another magic number, or more or fewer bytes than its header says.

    Source: Y. LeCun's description of the format: two zero bytes, type, number of axes, sizes, data.
    """
    content = _content(path)
    header = 4 + 4 * axes
    magic = bytes([0, 0, UNSIGNED_BYTE, axes])
    if len(content) < header or content[:4] != magic:
        raise SetupError(f"{path}: expected an IDX file starting {magic.hex()}, got {content[:4].hex()}")
    shape = struct.unpack(f">{axes}I", content[4:header])
    if len(content) - header != prod(shape):
        raise SetupError(f"{path}: expected {prod(shape)} bytes for {shape}, got {len(content) - header}")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise SetupError(f"{path}: expected a readable IDX file, got: {error}") from error
