"""Six disjoint parts of a data set, stratified by class, whole tracks to one part.

Calibration and fusion keep one frame a track, because frames of a track are not independent and conformal
p-values count independent images.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from service.errors import SetupError
from training.data.types import DataSet, ImageSet

__all__ = ["PART_NAMES", "Parts", "Sizes", "split"]

Integers = NDArray[np.int64]

ONE_FRAME_A_TRACK = frozenset({"calibration", "fusion"})
PART_NAMES = ("train", "selection", "fit", "calibration", "fusion", "test")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Images in each held-out part; where a set has tracks, calibration and fusion count tracks."""

    train: int = 0
    """0 takes all that the others leave."""
    selection: int = 0
    fit: int = 0
    """0 takes the training part itself."""
    calibration: int
    fusion: int

    def __post_init__(self) -> None:
        for field in fields(self):
            low = 0 if field.name in ("train", "selection", "fit") else 1
            value = getattr(self, field.name)
            if value < low:
                raise SetupError(f"data.{field.name}: expected at least {low}, got {value}")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Disjoint parts of one set; no image, and no track, is in two of them, `fit` of size 0 aside."""

    train: ImageSet
    """For the model."""
    selection: ImageSet
    """Picks the best epoch; may be empty."""
    fit: ImageSet
    """For the detectors; the training part itself where no images were set apart."""
    calibration: ImageSet
    """Calibrates each detector; one frame a track."""
    fusion: ImageSet
    """Calibrates the fused statistic; one frame a track."""
    test: ImageSet
    """For figures; nothing is chosen on it."""


def split(dataset: DataSet, sizes: Sizes, seed: int) -> Parts:
    """Cuts the set's training data; test is the set's own, or else what the sizes leave.

    The same arguments give the same parts. With tracks, selection and fit are rounded to whole tracks.

    Raises:
        SetupError: the set has too few images (or tracks) for the sizes.
    """
    source = dataset.train
    random = np.random.default_rng(np.random.SeedSequence([seed]))
    units = np.arange(len(source)) if source.tracks is None else source.tracks
    firsts, unit_of = _unit_index(units)
    order = _interleaved(source.labels[firsts], random)  # units, every class spread evenly
    wanted = _unit_counts(dataset, sizes, len(order))
    parts: dict[str, ImageSet] = {}
    start = 0
    for name, count in wanted.items():
        chosen = order[start : start + count]
        start += count
        parts[name] = source.take(_images_of(chosen, unit_of, random if name in ONE_FRAME_A_TRACK else None))
    if len(dataset.test):
        parts["test"] = dataset.test
    if not sizes.fit:
        parts["fit"] = parts["train"]
    return Parts(**parts)


def _unit_index(units: Integers) -> tuple[Integers, Integers]:
    """Position of each unit's first image (U,), and the unit number of each image (N,)."""
    _, firsts, unit_of = np.unique(units, return_index=True, return_inverse=True)
    return firsts.astype(np.int64), unit_of.astype(np.int64)


def _interleaved(labels: Integers, random: np.random.Generator) -> Integers:
    """An order of the units (U,) in which any run of neighbours has the classes in proportion.

    Systematic sampling: the members of a class, shuffled, stand at equal distances from a random start.
    """
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        places[members] = (np.arange(len(members)) + random.random()) / len(members)
    return np.argsort(places, kind="stable").astype(np.int64)


def _unit_counts(dataset: DataSet, sizes: Sizes, units: int) -> dict[str, int]:
    """Units of each part, held-out parts first; a part that the sizes leave open takes the rest."""
    images_a_unit = len(dataset.train) / units
    counts = {
        "selection": round(sizes.selection / images_a_unit),
        "fit": max(1, round(sizes.fit / images_a_unit)) if sizes.fit else 0,
        "calibration": sizes.calibration,
        "fusion": sizes.fusion,
    }
    left = units - sum(counts.values())
    if sizes.train:
        counts["train"] = max(1, round(sizes.train / images_a_unit))
    elif len(dataset.test):
        counts["train"] = left
    else:
        raise SetupError(f"data.train: expected a number, got 0; {dataset.name} has no test split of its own")
    if not len(dataset.test):
        counts["test"] = left - counts["train"]
    if sum(counts.values()) > units or counts["train"] < 1 or counts.get("test", 1) < 1:
        what = "images" if dataset.train.tracks is None else "tracks"
        raise SetupError(
            f"data: expected sizes that fit into the {units} {what} of {dataset.name} and leave some, "
            f"got {', '.join(f'{name} {count}' for name, count in counts.items())}"
        )
    return counts


def _images_of(units: Integers, unit_of: Integers, random: np.random.Generator | None) -> Integers:
    """Positions of all images of these units, or with a generator of one random image of each."""
    members = np.flatnonzero(np.isin(unit_of, units))
    if random is None:
        return members
    members = random.permutation(members)
    _, firsts = np.unique(unit_of[members], return_index=True)
    return np.sort(members[firsts])
