"""The generated images of a recipe: found, checked, labelled."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import SetupError
from training.config import Recipe
from training.data import DataSet, ImageSet
from training.data.generated import Generated, read_generated
from training.proxy.unseen import check_unseen

__all__ = ["Proxy", "check_generated", "find_generated", "load_proxy"]

CHUNK = 1 << 14
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """What a run trains on beside its training part."""

    images: ImageSet
    given: Labels | None
    """Labels (N,) that the recipe's labeller gave; None for those of the set itself."""
    digest: str
    """SHA-256 of images and labels, to resume with the same ones only."""


def load_proxy(
    recipe: Recipe, dataset: DataSet, data_root: Path | None, label: Callable[[NDArray[np.uint8]], Labels]
) -> Proxy | None:
    """The generated images that a recipe trains on; None where it trains on real ones alone.

    Args:
        recipe: says which.
        dataset: the real ones, whose shape and classes they must have.
        data_root: folder of the data.
        label: asks the labeller, or knows what it said before.

    Raises:
        SetupError: they are missing, damaged or of another shape, have no labels and no labeller, or may have been made
            from held-out images.
    """
    config = recipe.proxy
    if not config.is_on:
        return None
    path = find_generated(config.set, data_root)
    found = read_generated(path)
    check_generated(path, found, recipe, dataset)
    images, labels = found.images, found.labels
    if config.images:
        if config.images > len(found):
            raise SetupError(f"proxy.images: expected at most the {len(found)} of {path}, got {config.images}")
        # Evenly over the file, which may be sorted by class.
        chosen = np.arange(config.images) * len(found) // config.images
        images, labels = images[chosen], None if labels is None else labels[chosen]
    given = None
    if labels is None:
        if not config.labeller:
            raise SetupError(
                f"proxy.labeller: expected a run or a bundle to label {path}, which has no labels, got none"
            )
        labels = given = label(images)
    elif config.labeller:
        raise SetupError(f"proxy.labeller: expected none for {path}, whose images have labels, got {config.labeller}")
    every = ImageSet(images=images, labels=labels)
    return Proxy(images=every, given=given, digest=_digest(every))


def find_generated(name: str, data_root: Path | None) -> Path:
    """A file in the data folder, or else by its path.

    Raises:
        SetupError: it is in neither place.
    """
    folders = [data_root] if data_root is not None and data_root.is_dir() else []
    places = list(dict.fromkeys([*(folder / name for folder in folders), Path(name)]))
    for place in places:
        if place.is_file():
            return place
    raise SetupError(
        f"proxy.set: expected a file of generated images at {' or '.join(str(place) for place in places)}, found none; "
        "`advsentry-train proxy generate` makes one"
    )


def check_generated(path: Path, found: Generated, recipe: Recipe, dataset: DataSet) -> None:
    """Refuses images of another shape or class than the real ones, or made from held-out images.

    Raises:
        SetupError: see above.
    """
    shape, classes = dataset.train.images.shape[1:], len(dataset.class_names)
    if found.images.shape[1:] != shape:
        raise SetupError(
            f"{path}: expected images {shape} as those of {dataset.name}, got {found.images.shape[1:]}; bring them to "
            "one size and number of channels"
        )
    if found.labels is not None and not (found.labels.min() >= 0 and found.labels.max() < classes):
        raise SetupError(
            f"{path}: expected labels from 0 to {classes - 1} as those of {dataset.name}, got {found.labels.min()} to "
            f"{found.labels.max()}"
        )
    check_unseen(str(path), found.origin.get("data", {}), recipe)


def _digest(images: ImageSet) -> str:
    digest = hashlib.sha256(images.labels.tobytes())
    for start in range(0, len(images), CHUNK):  # never a copy of a whole mapped file
        digest.update(images.images[start : start + CHUNK].tobytes())
    return digest.hexdigest()
