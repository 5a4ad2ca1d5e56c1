"""Data sets as uint8 arrays. A new one: one file, one line in DATASETS, one row in its test table."""

from collections.abc import Callable, Mapping
from pathlib import Path

from service.errors import SetupError
from training.checks import one_of
from training.data.arrays import gtsrb32, npz
from training.data.cifar import cifar10
from training.data.digits import digits
from training.data.folder import cifar10_jpeg75, folder, zipped
from training.data.mnist import mnist
from training.data.types import DataSet, ImageSet

__all__ = ["DATASETS", "DataSet", "ImageSet", "load_data"]

DATASETS: Mapping[str, Callable[[Path | None], DataSet]] = {
    "digits": digits,
    "mnist": mnist,
    "gtsrb32": gtsrb32,
    "cifar10": cifar10,
    "cifar10-jpeg75": cifar10_jpeg75,
    "npz": npz,
    "folder": folder,
    "zip": zipped,
}
WITHOUT_TEST = frozenset({"digits"})
"""Sets whose makers publish no test split: the recipe's sizes make one."""


def load_data(name: str, root: Path | None) -> DataSet:
    """The data set of this name.

    Args:
        name: a key of DATASETS.
        root: folder of the data; for npz and zip the file itself; digits need none.

    Raises:
        SetupError: an unknown name, data that are missing or damaged, or no test images where a set should have some.
    """
    one_of(DATASETS, "data.set", name)
    dataset = DATASETS[name](root)
    if not len(dataset.test) and name not in WITHOUT_TEST:  # training images in their place would go unnoticed
        raise SetupError(
            f"{dataset.name}: expected test images, got none; add some, or set a part of the training images apart"
        )
    return dataset
