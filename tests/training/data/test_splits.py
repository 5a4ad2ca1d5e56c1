from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import SetupError
from training.data import DataSet, ImageSet, load_data
from training.data.splits import PART_NAMES, Parts, Sizes, split


def numbered(count: int, classes: int, *, frames: int = 0, test: int = 5) -> DataSet:
    """A set whose images carry their own position, so that a part's members can be told."""

    def images(low: int, number: int) -> ImageSet:
        places = np.arange(low, low + number)
        pixels = np.stack([places // 256, places % 256], axis=1).astype(np.uint8).reshape(number, 1, 1, 2)
        units = places // frames if frames else places
        tracks = units.astype(np.int64) if frames and low == 0 else None
        return ImageSet(images=pixels, labels=(units % classes).astype(np.int64), tracks=tracks)

    names = tuple(str(label) for label in range(classes))
    return DataSet(name="numbered", class_names=names, train=images(0, count), test=images(count, test))


def places(images: ImageSet) -> set[int]:
    return set((images.images[:, 0, 0, 0].astype(int) * 256 + images.images[:, 0, 0, 1]).tolist())


def parts_of(parts: Parts) -> dict[str, ImageSet]:
    return {name: getattr(parts, name) for name in PART_NAMES}


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(st.integers(0, 40), *[st.integers(1, 40)] * 3),
    classes=st.integers(1, 7),
    seed=st.integers(0, 5),
    own_test=st.booleans(),
)
def test_parts_are_disjoint_and_of_the_asked_size(
    sizes: tuple[int, int, int, int], classes: int, seed: int, own_test: bool
) -> None:
    dataset = numbered(300, classes, test=5 if own_test else 0)
    selection, fit, calibration, fusion = sizes
    asked = Sizes(train=100, selection=selection, fit=fit, calibration=calibration, fusion=fusion)
    parts = parts_of(split(dataset, asked, seed))
    for left, right in combinations(parts.values(), 2):
        assert not places(left) & places(right)
    for name in ("train", "selection", "fit", "calibration", "fusion"):
        assert len(parts[name]) == getattr(asked, name)
    assert len(parts["test"]) == (5 if own_test else 200 - sum(sizes))


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(2, 9), seed=st.integers(0, 5))
def test_whole_tracks_go_to_one_part(frames: int, seed: int) -> None:
    dataset = numbered(60 * frames, 4, frames=frames)
    parts = split(dataset, Sizes(selection=2 * frames, fit=7 * frames, calibration=11, fusion=13), seed)
    tracks = {name: set(part.tracks.tolist()) for name, part in parts_of(parts).items() if part.tracks is not None}
    for left, right in combinations(tracks.values(), 2):
        assert not left & right
    assert len(parts.calibration) == len(tracks["calibration"]) == 11
    assert len(parts.fusion) == len(tracks["fusion"]) == 13
    assert (len(parts.selection), len(parts.fit)) == (2 * frames, 7 * frames)
    assert len(parts.train) == (60 - 2 - 7 - 11 - 13) * frames


def test_every_part_has_the_classes_in_proportion() -> None:
    labels = np.repeat(np.arange(3), (60, 300, 240))
    images = np.zeros((600, 1, 1, 1), np.uint8)
    every = ImageSet(images=images, labels=labels)
    dataset = DataSet(name="uneven", class_names=("a", "b", "c"), train=every, test=every)
    parts = split(dataset, Sizes(selection=50, fit=100, calibration=100, fusion=100), seed=3)
    for name in ("selection", "fit", "calibration", "fusion", "train"):
        part = getattr(parts, name)
        expected = np.array([0.1, 0.5, 0.4]) * len(part)
        assert np.abs(np.bincount(part.labels, minlength=3) - expected).max() <= 2


def test_the_seed_decides() -> None:
    dataset, sizes = numbered(200, 4), Sizes(fit=20, calibration=20, fusion=20)
    assert places(split(dataset, sizes, 1).fit) == places(split(dataset, sizes, 1).fit)
    assert places(split(dataset, sizes, 1).fit) != places(split(dataset, sizes, 2).fit)


def test_digits_leave_the_rest_to_test() -> None:
    parts = split(load_data("digits", None), Sizes(train=850, fit=200, calibration=200, fusion=199), 0)
    assert [len(part) for part in parts_of(parts).values()] == [850, 0, 200, 200, 199, 348]


@pytest.mark.parametrize(
    ("sizes", "test", "message"),
    [
        (Sizes(fit=60, calibration=60, fusion=90), 5, "expected sizes that fit into the 200 images"),
        (Sizes(train=180, fit=10, calibration=10, fusion=10), 5, "expected sizes that fit"),
        (Sizes(train=170, fit=10, calibration=10, fusion=10), 0, "expected sizes that fit"),
        (Sizes(fit=10, calibration=10, fusion=10), 0, r"data\.train: expected a number, got 0"),
    ],
    ids=["held-out parts", "train", "no test left", "no train"],
)
def test_sizes_that_do_not_fit_are_refused(sizes: Sizes, test: int, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        split(numbered(200, 4, test=test), sizes, 0)


def test_only_selection_may_be_empty() -> None:
    with pytest.raises(SetupError, match=r"data\.calibration: expected at least 1, got 0"):
        Sizes(fit=1, calibration=0, fusion=1)


def test_without_a_fit_part_detectors_are_fitted_on_the_training_part() -> None:
    parts = split(load_data("digits", None), Sizes(train=100, fit=0, calibration=20, fusion=20), seed=0)
    assert parts.fit is parts.train
    assert len(parts.train) == 100
