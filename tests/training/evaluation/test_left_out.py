"""What each detector adds, from a calibration made again without it."""

import dataclasses

import numpy as np
import pytest

from service.detection.calibration import Calibration
from service.detection.engine import Engine
from service.detection.fusion import Fusion
from service.detection.rows import ByClass
from tests import tiny
from tests.training.evaluation import small
from training.evaluation.decisions import decide
from training.evaluation.judging import Attacked, Subject
from training.evaluation.left_out import judge_left_out, without

FIRST, SECOND = (np.random.default_rng(seed).normal(size=(90, 3)).astype(np.float32) for seed in (1, 2))

LABELS = np.arange(90) % 2


@pytest.mark.parametrize("left_out", [0, 2, None])
def test_it_is_the_calibration_of_the_others(left_out: int | None) -> None:
    calibration = Calibration.from_clean(FIRST, SECOND)
    found, kept = without(calibration, SECOND, LABELS, left_out)
    anew = Calibration.from_clean(FIRST[:, kept], SECOND[:, kept])
    assert left_out not in kept
    np.testing.assert_array_equal(found.detector_scores, anew.detector_scores)
    np.testing.assert_array_equal(found.fused_scores, anew.fused_scores)


def test_weights_and_rows_of_classes_stay_with_their_detectors_and_images() -> None:
    weights = np.array([0.5, 0.0, 2.0])
    by_class = ByClass.of(LABELS, 2, 30)
    calibration = Calibration.from_clean(
        FIRST, SECOND, fusion=Fusion(kind="weighted", weights=weights), by_class=by_class
    )
    found, kept = without(calibration, SECOND, LABELS, 0)
    anew = Calibration.from_clean(
        FIRST[:, kept], SECOND[:, kept], fusion=Fusion(kind="weighted", weights=weights[1:]), by_class=by_class
    )
    np.testing.assert_array_equal(found.fused_scores, anew.fused_scores)
    np.testing.assert_array_equal(found.rows.sizes, anew.rows.sizes)
    np.testing.assert_array_equal(
        found.fused_p_values(SECOND[:, kept], LABELS), anew.fused_p_values(SECOND[:, kept], LABELS)
    )


def told(engine: Engine, fusion: np.ndarray, *, is_adaptive: bool = False) -> dict[str | None, float | None]:
    """AUROC without each detector, of brightened images."""
    test = small.held_out(40)
    brighter = (test.images.astype(np.int64) + 40).clip(0, 255).astype(np.uint8)
    clean = decide(engine, test.images)
    subject = Subject(images=test.images, truth=test.labels, clean=clean, weights=np.ones((3, 40), np.float32))
    entry = dataclasses.replace(small.NOTHING, is_adaptive=is_adaptive)
    one = Attacked(entry=entry, images=brighter, decisions=decide(engine, brighter), disagreements=0, seconds=0.0)
    rows = judge_left_out(engine, fusion, clean, subject, [one], seed=0)
    return {row.detector: row.mean_auroc_all for row in rows}


@pytest.fixture(scope="module")
def fusion(engine: Engine) -> np.ndarray:
    """The images that the tiny bundle's fused statistic was calibrated on."""
    return tiny.images(engine.bundle.calibration.fused_scores.size, seed=2)


def test_the_whole_bundle_is_the_first_row_and_each_detector_has_one(engine: Engine, fusion: np.ndarray) -> None:
    found = told(engine, fusion)
    assert list(found) == [None, "brightness", "contrast"]
    assert all(value is not None and value > 0.5 for value in found.values())


def test_other_images_than_those_of_the_calibration_give_nothing(engine: Engine, fusion: np.ndarray) -> None:
    assert told(engine, 255 - fusion) == {}
    assert told(engine, fusion[:-1]) == {}


def test_attacks_that_knew_the_detectors_say_nothing_of_the_rest(engine: Engine, fusion: np.ndarray) -> None:
    assert told(engine, fusion, is_adaptive=True) == {}
