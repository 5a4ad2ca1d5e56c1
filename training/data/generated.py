"""Sets of generated images, as they are published: one .npz file with an array of images and one of labels.

Arrays that numpy.savez stored as they are stay in the file, mapped into memory; compressed ones are read once.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import SetupError

__all__ = ["Generated", "read_generated", "write_generated"]

IMAGE_NAMES = ("image", "images", "arr_0", "data", "samples", "x")
LABEL_NAMES = ("label", "labels", "arr_1", "targets", "y")
"""What published sets call them; arr_0 and arr_1 are what numpy.savez calls arrays without a name."""
ORIGIN = "origin"
LOCAL_HEADER = 30
"""Bytes of a zip member's own header, before its name."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Images that a generator made."""

    images: NDArray[np.uint8]
    """(N, H, W, C)."""
    labels: NDArray[np.int64] | None
    """(N,); None where the generator knew no classes."""
    origin: Mapping[str, Any]
    """What our generators say of themselves; empty for sets of others."""

    def __len__(self) -> int:
        return len(self.images)


def read_generated(path: Path) -> Generated:
    """The images and labels of an .npz file.

    Raises:
        SetupError: it is missing or damaged, or its arrays are not uint8 images with one label each.
    """
    try:
        with zipfile.ZipFile(path) as content:
            members = {entry.filename.removesuffix(".npy"): entry for entry in content.infolist()}
            name = _one_of(path, "images", IMAGE_NAMES, members)
            images = _images(path, name, _array(path, content, members[name]))
            labels = None
            if any(name in members for name in LABEL_NAMES):
                name = _one_of(path, "labels", LABEL_NAMES, members)
                labels = _labels(path, name, _array(path, content, members[name]), len(images))
            told = str(_array(path, content, members[ORIGIN])) if ORIGIN in members else "{}"
            return Generated(images=images, labels=labels, origin=dict(json.loads(told)))
    except (OSError, ValueError, EOFError, TypeError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise SetupError(
            f"{path}: expected an .npz file of generated images, as numpy.savez writes it, got: {error}"
        ) from error


def _one_of(path: Path, what: str, names: Sequence[str], members: Mapping[str, object]) -> str:
    found = [name for name in names if name in members]
    if len(found) != 1:
        raise SetupError(
            f"{path}: expected one array of {what}, called {', '.join(names)}, got {', '.join(found) or 'none'} "
            f"among {', '.join(sorted(members)) or 'no arrays'}"
        )
    return found[0]


def _array(path: Path, content: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[np.generic]:
    """Mapped where it lies uncompressed, else read."""
    with content.open(member) as file:
        if member.compress_type == zipfile.ZIP_STORED and np.lib.format.read_magic(file) in ((1, 0), (2, 0)):
            return _mapped(path, member)
    with content.open(member) as file:
        array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _mapped(path: Path, member: zipfile.ZipInfo) -> NDArray[np.generic]:
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(LOCAL_HEADER)
        name, extra = (int.from_bytes(header[place : place + 2], "little") for place in (26, 28))
        file.seek(member.header_offset + LOCAL_HEADER + name + extra)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(file)
        if dtype.hasobject:
            raise ValueError("an array of Python objects")
        offset = file.tell()
    if 0 in shape:  # nothing can be mapped
        return np.empty(shape, dtype)
    # Copy on write: torch wants memory that may be written, and the file stays as it is.
    return np.memmap(path, dtype, mode="c", offset=offset, shape=shape, order="F" if is_fortran else "C")


def _images(path: Path, name: str, array: NDArray[np.generic]) -> NDArray[np.uint8]:
    images = array[..., None] if array.ndim == 3 else array
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise SetupError(
            f"{path}: {name}: expected uint8 images (N, H, W, C) of 1 or 3 channels, got {array.dtype} {array.shape}; "
            "store values from 0 to 255 as uint8, channels last"
        )
    return images.view(np.uint8)


def _labels(path: Path, name: str, array: NDArray[np.generic], count: int) -> NDArray[np.int64]:
    if not np.issubdtype(array.dtype, np.integer) or array.shape != (count,):
        raise SetupError(
            f"{path}: {name}: expected whole numbers ({count},), one label for each image, got {array.dtype} "
            f"{array.shape}"
        )
    return array.astype(np.int64)


def write_generated(
    path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64] | None, origin: Mapping[str, Any]
) -> None:
    """Writes a set that read_generated() reads; a crash leaves the old file or the new one.

    Args:
        path: of the .npz file.
        images: (N, H, W, C).
        labels: (N,) or None.
        origin: what made them, as JSON knows it.
    """
    arrays: dict[str, NDArray[np.generic]] = {"image": images, ORIGIN: np.array(json.dumps(dict(origin)))}
    if labels is not None:
        arrays["label"] = labels
    temporary = path.with_name(f"{path.name}.new")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
