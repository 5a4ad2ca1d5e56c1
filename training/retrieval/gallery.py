"""What is searched and by which queries."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.errors import SetupError
from training.checkpoint import Run
from training.data import ImageSet, load_data
from training.data.classes import other_classes
from training.evaluation.held_out import choose_images

__all__ = ["Gallery", "gallery_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Gallery:
    """Images that are searched; the queries are some of them, each searching all others."""

    images: ImageSet
    queries: NDArray[np.int64]
    """(Q,) positions of the queries, in rising order."""
    is_unseen: bool
    """Whether training saw none of these classes."""

    def partners(self) -> tuple[Tensor, Tensor]:
        """(Q, G) bool: items of the query's class, and of other classes, that it may find.

        Neither the query itself nor, where images have tracks, an image of its track is among them.
        """
        labels, tracks = self.images.labels, self.images.tracks
        same = labels[self.queries, None] == labels[None, :]
        units = np.arange(len(labels)) if tracks is None else tracks
        allowed = units[self.queries, None] != units[None, :]
        return torch.from_numpy(same & allowed), torch.from_numpy(~same & allowed)


def gallery_of(run: Run, data_root: Path | None, count: int, seed: int) -> Gallery:
    """The images of the classes that the run left out, or else, where it took all, its test part.

    Args:
        run: finished.
        data_root: folder of the data.
        count: of queries at most, classes in proportion; only images that have a partner to find are queries.
        seed: of the choice.

    Raises:
        SetupError: there are not two classes with something to find.
    """
    seen = run.recipe.data.classes
    images = run.parts(data_root).test  # refuses other data than those of the run
    if seen:
        images = other_classes(load_data(run.recipe.data.set, data_root), seen)
    units = np.arange(len(images)) if images.tracks is None else images.tracks
    able = np.flatnonzero(_units_a_class(images.labels, units)[images.labels] > 1) if len(images) else units
    if len(np.unique(images.labels[able])) < 2:
        raise SetupError(
            f"{run.path}: expected two classes of two images (or tracks) each to search in, got fewer; "
            "lower data.classes or take a larger set"
        )
    queries = able[choose_images(images.labels[able], count, seed)]
    return Gallery(images=images, queries=queries.astype(np.int64), is_unseen=seen > 0)


def _units_a_class(labels: NDArray[np.int64], units: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many different images, or tracks, each class has."""
    pairs = np.unique(np.stack([labels, units]), axis=1)
    return np.bincount(pairs[0], minlength=int(labels.max()) + 1)
