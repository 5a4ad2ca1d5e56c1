"""One row of clean statistics for each predicted class: its rate, its order, its refusals."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from service.detection.bundle import Bundle, load_bundle, write_bundle
from service.detection.calibration import Calibration, alpha_rank
from service.detection.engine import Engine
from service.detection.rows import ByClass, Rows, rejects
from service.detection.types import Verdict
from service.errors import BundleError, InvalidRequest
from service.report import describe, info_json
from tests import tiny

CLASSES = len(tiny.CLASSES)
SHARES, SCALES = np.array([0.5, 0.3, 0.1, 0.1]), np.array([1.0, 3.0, 9.0, 0.5])


def drawn(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 1) scores whose size depends on the class, and the classes."""
    labels = generator.choice(CLASSES, count, p=SHARES)
    return (SCALES[labels] * generator.exponential(size=count)).astype(np.float32)[:, None], labels


def calibrated(generator: np.random.Generator, n: int, at_least: int) -> Calibration:
    (first, _), (second, labels) = drawn(generator, 60), drawn(generator, n)
    return Calibration.from_clean(first, second, by_class=ByClass.of(labels, CLASSES, at_least))


@pytest.mark.parametrize(
    ("counts", "own"),
    [
        ((30, 25, 20, 19), (True, True, False, False)),  # 20 + 19 share; else 19 would be too few
        ((30, 25, 11, 9), (True, True, False, False)),
        ((30, 25, 20, 0), (True, True, False, False)),  # a class that nothing was predicted as
        ((30, 25, 22, 20), (True, True, True, True)),
        ((30, 9, 1, 0), (False, False, False, False)),
        ((5, 5, 5, 5), (False, False, False, False)),
    ],
)
def test_which_class_has_a_row_is_decided_by_its_count(counts: tuple[int, ...], own: tuple[bool, ...]) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(CLASSES), counts))
    by_class = ByClass.of(labels, CLASSES, 20)
    assert tuple(by_class.has_own_row) == own
    rows = Rows.of(np.arange(len(labels), dtype=np.float32), by_class)
    assert rows.sizes.sum() == len(labels)
    assert rows.smallest >= 20 or not any(own)
    assert by_class.own_counts == {label: counts[label] for label in range(CLASSES) if own[label]}
    assert by_class.shared_count == sum(count for count, has in zip(counts, own, strict=True) if not has)


def test_each_class_keeps_the_rate_and_the_others_keep_it_together() -> None:
    generator, alpha, repeats, shared = np.random.default_rng(1), 0.05, 2000, CLASSES
    excess = np.zeros((repeats, CLASSES + 1))  # alarms above what was promised: of own rows, then of the shared one
    fired, seen = np.zeros(CLASSES), np.zeros(CLASSES)
    for repeat in range(repeats):
        made = calibrated(generator, 200, 39)  # the two rare classes have about 20 each
        assert made.by_class is not None
        scores, labels = drawn(generator, 8)
        rows, sizes = made.rows.of_labels(labels), made.rows.sizes
        hits = rejects(made.fused_p_values(scores, labels), rows, sizes, alpha)
        promised = np.array([alpha_rank(alpha, int(n)) / (n + 1) for n in sizes])[rows]
        places = np.where(made.by_class.has_own_row[labels], labels, shared)
        np.add.at(excess[repeat], places, hits - promised)
        one_row = dataclasses.replace(made, by_class=None)
        np.add.at(fired, labels, one_row.fused_p_values(scores, labels) <= alpha)
        np.add.at(seen, labels, 1)
    errors = excess.std(axis=0) / np.sqrt(repeats)
    used = errors > 0
    assert used[[0, 1, shared]].all()
    assert (np.abs(excess.mean(axis=0))[used] < 3 * errors[used]).all()
    # What this is for: one row of all has a hard class rejected four times as often as promised, an easy one never.
    assert fired[2] / seen[2] > 4 * alpha
    assert fired[0] / seen[0] < alpha / 5


@pytest.fixture(scope="module")
def made() -> Calibration:
    return calibrated(np.random.default_rng(2), 150, 30)


def test_the_order_is_by_p_value_and_then_by_the_statistic(made: Calibration) -> None:
    scores, labels = drawn(np.random.default_rng(3), 400)
    scores[:40] *= 20
    statistic, p = made.fuse(scores), made.fused_p_values(scores, labels)
    suspicion = made.suspicion(scores, labels)
    assert np.isfinite(suspicion).all()
    slow = np.lexsort((statistic, -np.round(p, 12)))  # last key first: rising suspicion
    assert np.array_equal(p[np.argsort(suspicion, kind="stable")].round(12), p[slow].round(12))
    for row in range(len(made.rows.scores)):
        own = made.rows.of_labels(labels) == row
        assert np.array_equal(np.argsort(suspicion[own], kind="stable"), np.argsort(statistic[own], kind="stable"))


def test_one_threshold_is_the_verdict_of_every_row_at_every_alpha(made: Calibration) -> None:
    scores, labels = drawn(np.random.default_rng(4), 500)
    rows = made.rows.of_labels(labels)
    p, suspicion = made.fused_p_values(scores, labels), made.suspicion(scores, labels)
    for alpha in (made.smallest_alpha, 0.04, 0.05, 0.0999, 0.1, 0.31):
        threshold = made.fused_threshold(alpha)
        assert threshold is not None
        assert np.array_equal(suspicion > threshold, rejects(p, rows, made.rows.sizes, alpha))
    assert made.fused_threshold(0.99 * made.smallest_alpha) is None


def test_an_alpha_must_be_one_that_every_row_supports(made: Calibration) -> None:
    smallest = made.rows.smallest
    assert smallest < made.fused_scores.size / 2
    made.check_alpha(1 / (smallest + 1), largest=0.1)
    with pytest.raises(
        InvalidRequest, match=rf"needs 149 .*, the bundle, calibrated by class, has a row of {smallest}"
    ):
        made.check_alpha(1 / 150, largest=0.1)


def test_it_survives_its_file(made: Calibration) -> None:
    read = Calibration.from_bytes(made.to_bytes())
    scores, labels = drawn(np.random.default_rng(5), 50)
    assert np.array_equal(read.fused_p_values(scores, labels), made.fused_p_values(scores, labels))
    assert read.to_bytes() == made.to_bytes()


@pytest.mark.parametrize(
    ("predicted", "own", "says"),
    [
        ([0, 1, 4], [True] * 4, "fused_classes: expected classes from 0 to 3, got others"),
        ([0, 1, 1], [True, True, True, False], "has_own_row: leaves a row without images"),
        ([0, 1, 1], [True, True], "fused_classes: expected 150, one a fused score, got 3"),
    ],
)
def test_rows_that_are_none_are_refused(made: Calibration, predicted: list[int], own: list[bool], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(made, by_class=ByClass(predicted=np.array(predicted, np.int32), has_own_row=np.array(own)))


def bundle_by_class(path: Path, classes: int = CLASSES) -> Bundle:
    files = tiny.files(n=299)
    before = Calibration.from_bytes(files["calibration.npz"])
    predicted = np.random.default_rng(6).choice(2, 299, p=[0.6, 0.4])
    by_class = ByClass.of(predicted, classes, 99)
    content = {**files, "calibration.npz": dataclasses.replace(before, by_class=by_class).to_bytes()}
    write_bundle(path, tiny.manifest(content, default_alpha=0.05), content)
    return load_bundle(path)


def test_the_verdict_is_that_of_the_predicted_class_in_whole_ranks(tmp_path: Path) -> None:
    bundle = bundle_by_class(tmp_path / "tiny")
    own = bundle.calibration.by_class
    assert own is not None
    assert own.has_own_row.tolist() == [True, False, False, False]
    engine = Engine(bundle)
    share = np.linspace(0, 0.5, 200)[:, None, None, None]
    images = (tiny.images(200, seed=5) * (1 - share) + 255 * share).astype(np.uint8)
    fused = bundle.calibration.fuse(engine.measure(images).outputs.scores)
    for alpha in (1 / (bundle.calibration.rows.smallest + 1), 0.02, 0.05, 0.1):
        verdicts = set()
        for found, statistic in zip(engine.detect(images, alpha=alpha), fused, strict=True):
            row = bundle.calibration.fused_scores[(own.predicted == 0) == (found.top.index == 0)]
            assert found.p_value == (1 + (row >= statistic).sum()) / (len(row) + 1)
            assert (found.verdict is Verdict.ADVERSARIAL) == (found.p_value <= alpha + 1e-12)
            verdicts.add((found.top.index == 0, found.verdict))
        assert len(verdicts) == 4


def test_info_says_which_classes_have_rows(tmp_path: Path) -> None:
    bundle = bundle_by_class(tmp_path / "tiny")
    count = bundle.calibration.rows.sizes[0]
    assert f"1 of 4 classes have a row of their own: north-west ({count}); the others share a row of {299 - count}" in (
        describe(bundle)
    )
    told = info_json(bundle)
    assert (told["fusion"], told["own_rows"]) == ("fisher", {"north-west": count})
    assert told["smallest_alpha"] == 1 / (min(count, 299 - count) + 1)


def test_a_calibration_of_other_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"calibration\.npz: expected 4 classes as in the manifest, got 5"):
        bundle_by_class(tmp_path / "tiny", classes=5)
