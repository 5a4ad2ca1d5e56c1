"""CIFAR-10 as its makers publish it: pickles of Python 2, in a tar file or unpacked."""

import pickle
import tarfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import SetupError
from training.data.roots import need_file, need_root
from training.data.sources import SOURCES, digest
from training.data.types import DataSet, ImageSet

__all__ = ["CIFAR10_CLASSES", "cifar10"]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
PIXELS = (3, 32, 32)

# What pickle is documented to raise on damaged input, and what the stand-ins raise on foreign arguments.
DAMAGED = (
    *(pickle.UnpicklingError, AttributeError, EOFError, ImportError),
    *(IndexError, KeyError, OverflowError, TypeError, ValueError),
)


def cifar10(root: Path | None) -> DataSet:
    """CIFAR-10: 50,000 + 10,000 colour images of 32x32.

    Read from root/cifar-10-python.tar.gz, whose checksum is compared, or from the folder cifar-10-batches-py that it
    unpacks to, in the root or the root itself.

    Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
    """
    place = need_root("cifar10", root)
    (archive,) = SOURCES["cifar10"]
    files = (place / FOLDER / TEST, place / TEST, place / archive.name)
    found = need_file("cifar10", *files)
    batches = _from_tar(found, archive.sha256) if found.name == archive.name else _from_folder(found.parent)
    parts = [_batch(f"{found.parent}/{name}", content) for name, content in batches.items()]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True))
    return DataSet(
        name="cifar10",
        class_names=CIFAR10_CLASSES,
        train=ImageSet(images=images, labels=labels),
        test=ImageSet(images=parts[-1][0], labels=parts[-1][1]),
    )


def _from_folder(folder: Path) -> Mapping[str, bytes]:
    return {name: need_file("cifar10", folder / name).read_bytes() for name in (*TRAIN, TEST)}


def _from_tar(path: Path, sha256: str) -> Mapping[str, bytes]:
    with path.open("rb") as whole:
        found = digest(whole)
    if found != sha256:
        raise SetupError(f"{path}: expected SHA-256 {sha256}, got {found}; delete it and fetch it anew")
    batches: dict[str, bytes] = {}
    with tarfile.open(path) as archive:
        for name in (*TRAIN, TEST):
            file = archive.extractfile(f"{FOLDER}/{name}")
            batches[name] = file.read() if file is not None else b""
    return batches


def _batch(file: str, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 32, 32, 3) and labels (N,) of one pickle."""
    try:
        found = _Unpickler(BytesIO(content), encoding="bytes").load()
        pixels, labels = found[b"data"].array(), np.array(found[b"labels"], dtype=np.int64)
        images = pixels.reshape(len(pixels), *PIXELS).transpose(0, 2, 3, 1)
    except DAMAGED as error:
        raise SetupError(
            f"{file}: expected a batch of CIFAR-10 (dictionary of data and labels), got: {error}; fetch the set anew"
        ) from error
    if labels.shape != (len(images),):
        raise SetupError(f"{file}: expected {len(images)} labels, one an image, got {labels.size}; fetch the set anew")
    return np.ascontiguousarray(images), labels


class _Stored:
    """Stands in for numpy's array: keeps what was pickled and runs none of numpy."""

    def __init__(self, *_arguments: object) -> None:
        self._state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._state = state

    def array(self) -> NDArray[np.uint8]:
        """The array, (N, 3072): state is version, shape, type, whether by columns, bytes."""
        _, shape, kind, by_columns, content = self._state
        if not isinstance(kind, _Kind) or kind.name != b"u1" or by_columns:
            raise ValueError("another array than one of bytes, row after row")
        return np.frombuffer(content, np.uint8).reshape(shape)


class _Kind:
    """Stands in for numpy's dtype: keeps its name."""

    def __init__(self, name: bytes, *_arguments: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """The byte order, of which single bytes have none."""


class _Unpickler(pickle.Unpickler):
    """Reads numbers, text, lists, dictionaries and arrays of bytes, and nothing that could run code."""

    NAMES: Mapping[tuple[str, str], Callable[..., object]] = {
        ("numpy.core.multiarray", "_reconstruct"): _Stored,
        ("numpy", "ndarray"): _Stored,
        ("numpy", "dtype"): _Kind,
    }

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """The stand-in for one of numpy's three names."""
        if (module, name) not in self.NAMES:
            raise pickle.UnpicklingError(f"a call of {module}.{name}")
        return self.NAMES[module, name]
