"""The rows of clean statistics that an image's statistic is ranked in: one for all, or one for each predicted class.

Source: Mondrian conformal prediction, Vovk, Gammerman and Shafer 2005, chapter 4.5, with the predicted class as the
category: it is known of every image, which the true one is not.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from service.detection.ranks import alpha_rank, p_values
from service.detection.types import Bools, Float32s, Float64s, Integers

__all__ = ["ByClass", "Rows", "rejects"]

_BELOW_1 = 0.999
"""So that a statistic never lifts an image to the next p-value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ByClass:
    """The predicted classes of the fused calibration's images, and which of the classes have a row of their own.

    The other classes share one row, which holds their images. It is not the row of all images: the share of clean
    images above a threshold of all may be far from alpha where only some classes are held against it, and the rate
    over all images would no longer be kept.

    Raises:
        ValueError: wrong types or shapes, a class that is none, or a row without images.
    """

    predicted: NDArray[np.int32]
    """(n2,) in the order of the fused scores."""
    has_own_row: Bools
    """(L,)."""

    def __post_init__(self) -> None:
        for name, values, kind in (
            ("fused_classes", self.predicted, np.int32),
            ("has_own_row", self.has_own_row, np.bool_),
        ):
            if values.dtype != kind or values.ndim != 1 or not values.size:
                raise ValueError(f"{name}: expected {np.dtype(kind)} of 1 axis, got {values.dtype} {values.shape}")
        if self.predicted.min() < 0 or self.predicted.max() >= self.has_own_row.size:
            raise ValueError(f"fused_classes: expected classes from 0 to {self.has_own_row.size - 1}, got others")
        if (self.counts[self.has_own_row] == 0).any() or (not self.has_own_row.all() and not self.shared_count):
            raise ValueError("has_own_row: leaves a row without images")

    @classmethod
    def of(cls, predicted: Integers, classes: int, at_least: int) -> "ByClass":
        """Gives a class its own row where at least so many images were predicted as it.

        Decided by the counts alone, never by scores. Where the classes that are left have too few images together,
        the smallest of those with a row join them, until the shared row has `at_least` images too. A row of a class's
        own keeps alpha exactly, given its count; the shared one nearly, because its classes are those that happened to
        be rare among the very images that it is made of.

        Args:
            predicted: (n2,) classes.
            classes: L.
            at_least: images of a row, at least 1.
        """
        counts = np.bincount(predicted, minlength=classes)
        has_own_row = counts >= at_least
        for label in np.argsort(counts, kind="stable"):
            if has_own_row.all() or counts[~has_own_row].sum() >= at_least:
                break
            has_own_row[label] = False
        return cls(predicted=predicted.astype(np.int32), has_own_row=has_own_row)

    @cached_property
    def counts(self) -> Integers:
        """(L,) images that were predicted as each class."""
        return np.bincount(self.predicted, minlength=self.has_own_row.size).astype(np.int64)

    @property
    def own_counts(self) -> dict[int, int]:
        """Classes with a row of their own, and its images."""
        return {int(label): int(self.counts[label]) for label in np.flatnonzero(self.has_own_row)}

    @property
    def shared_count(self) -> int:
        """Images of the classes without a row of their own; 0 where there is no such class."""
        return int(self.counts[~self.has_own_row].sum())

    @cached_property
    def row_of_class(self) -> Integers:
        """(L,) numbers of rows; the shared one, if any, comes last."""
        return np.where(self.has_own_row, np.cumsum(self.has_own_row) - 1, self.has_own_row.sum()).astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Clean statistics, each row in rising order, and which row is a class's."""

    scores: tuple[Float32s, ...]
    row_of_class: Integers | None = None
    """(L,); None where all classes have the one row."""

    @classmethod
    def of(cls, fused_scores: Float32s, by_class: ByClass | None) -> "Rows":
        """Cuts the fused scores (n2,), which are in rising order."""
        if by_class is None:
            return cls(scores=(fused_scores,))
        row_of_class = by_class.row_of_class
        rows = row_of_class[by_class.predicted]
        scores = tuple(fused_scores[rows == row] for row in range(int(row_of_class.max()) + 1))
        return cls(scores=scores, row_of_class=row_of_class)

    @cached_property
    def sizes(self) -> Integers:
        """(R,) images of each row."""
        return np.array([row.size for row in self.scores], dtype=np.int64)

    @property
    def smallest(self) -> int:
        """Images of the smallest row, which say how small an alpha may be."""
        return int(self.sizes.min())

    def of_labels(self, labels: Integers) -> Integers:
        """(N,) predicted classes to the numbers of their rows."""
        return np.zeros(len(labels), np.int64) if self.row_of_class is None else self.row_of_class[labels]

    def p_values(self, statistic: Float32s, rows: Integers) -> Float64s:
        """(N,) statistics to (N,) p-values, each in its row."""
        found = np.empty(len(statistic), np.float64)
        for row, clean in enumerate(self.scores):
            found[rows == row] = p_values(statistic[rows == row], clean)
        return found

    def order(self, statistic: Float32s, rows: Integers) -> Float64s:
        """One suspicion for all rows: larger for a smaller p-value, and among equal ones for a larger statistic.

        With one row this is the statistic itself, whose order it is. With several, a statistic says nothing across
        rows: -log p does, and the statistic only moves it within the gap to the next smaller p-value of any row.

        Args:
            statistic: (N,) at least 0.
            rows: (N,) numbers of rows.

        Returns:
            (N,) finite.
        """
        if len(self.scores) == 1:
            return statistic.astype(np.float64)
        places = np.searchsorted(self._levels, _level(self.p_values(statistic, rows)))
        logs = np.log(self._levels)
        gaps = np.diff(logs, prepend=logs[0] - 1.0)  # the smallest p-value has none below it
        share = statistic / (1.0 + statistic.astype(np.float64))  # in [0, 1]
        return np.asarray(_BELOW_1 * gaps[places] * share - logs[places])

    def threshold(self, alpha: float) -> float | None:
        """The largest `order` at which the verdict at alpha is clean; None when a row is too small for any alarm."""
        ranks = [alpha_rank(alpha, row.size) for row in self.scores]
        if min(ranks) < 1:
            return None
        if len(self.scores) == 1:
            (row,) = self.scores
            return float(row[row.size - ranks[0]])
        largest = max(_level(rank / (row.size + 1)) for rank, row in zip(ranks, self.scores, strict=True))
        return float(np.nextafter(-np.log(largest), -np.inf))

    @cached_property
    def _levels(self) -> Float64s:
        """Every p-value that some row can give, in rising order."""
        return np.unique(np.concatenate([_level(np.arange(1, row.size + 2) / (row.size + 1)) for row in self.scores]))


def rejects(p_values: Float64s, rows: Integers, sizes: Integers, alpha: float) -> Bools:
    """Whether p <= alpha, in whole ranks, so that no rounding of p matters.

    Args:
        p_values: (N,) fused.
        rows: (N,) numbers of the rows that they were ranked in.
        sizes: (R,) images of each row.

    Returns:
        (N,).
    """
    largest = np.array([alpha_rank(alpha, int(size)) for size in sizes])
    return np.asarray(np.rint(p_values * (sizes[rows] + 1)) <= largest[rows])


@overload
def _level(p_values: float) -> float: ...
@overload
def _level(p_values: Float64s) -> Float64s: ...
def _level(p_values: float | Float64s) -> float | Float64s:
    """p-values so rounded that equal ones of two rows, 1/100 and 10/1000, are the same number."""
    return np.round(p_values, 12)
