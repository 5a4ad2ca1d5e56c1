"""Statistics of each class that several detectors need."""

import torch
from torch import Tensor

from service.errors import SetupError

__all__ = ["at_least_two", "class_counts", "class_means"]


def class_counts(labels: Tensor, classes: int, *, at_least: int = 1) -> Tensor:
    """(L,) images of each class, int64.

    Raises:
        SetupError: a class has fewer than `at_least`.
    """
    counts = torch.bincount(labels, minlength=classes)
    if int(counts.min()) < at_least:
        raise SetupError(
            f"class {int(counts.argmin())} has {int(counts.min())} images to fit detectors on, expected {at_least} "
            "or more; enlarge data.fit in the recipe"
        )
    return counts


def class_means(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(L, D) mean of the (n, D) rows of each class."""
    counts = class_counts(labels, classes)
    sums = rows.new_zeros(classes, rows.shape[1]).index_add_(0, labels, rows)
    return sums / counts.to(rows)[:, None]


def at_least_two(classes: int) -> int:
    """The number of classes, for detectors that compare them.

    Raises:
        SetupError: there is one only.
    """
    if classes < 2:
        raise SetupError(f"expected 2 classes or more to fit detectors that compare classes, got {classes}")
    return classes
