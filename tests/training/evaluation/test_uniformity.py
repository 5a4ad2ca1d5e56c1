"""The distance of p-values from uniform."""

import numpy as np
import pytest
from scipy.stats import kstest

from service.detection.calibration import Calibration
from service.detection.rows import ByClass
from training.evaluation.decisions import FUSED, Decisions
from training.evaluation.uniformity import bound, distance, judge_uniformity, mid_ranks


def test_ties_count_half_and_what_is_not_finite_is_above_all() -> None:
    calibration = np.array([1, 2, 2, 3], np.float32)
    found = mid_ranks(np.array([0.0, 2.0, 3.0, np.nan]), calibration)
    assert found == pytest.approx([4 / 5, 2 / 5, 0.5 / 5, 0.0])


def test_the_distance_is_scipys() -> None:
    values = np.random.default_rng(0).random(50) ** 1.3
    assert distance(values) == pytest.approx(kstest(values, "uniform").statistic)


def judged(shift: float, *, seed: int = 0) -> tuple[bool, ...]:
    generator = np.random.default_rng(seed)
    first, second = generator.normal(size=(800, 1)), generator.normal(size=(700, 1))
    calibration = Calibration.from_clean(first.astype(np.float32), second.astype(np.float32))
    scores = (generator.normal(size=600) + shift).astype(np.float32)
    fused = calibration.fuse(scores[:, None])
    clean = Decisions(
        labels=np.zeros(600, np.int64),
        scores={"one": scores.astype(np.float64), FUSED: fused.astype(np.float64)},
        p_values={},
        ranked_in=np.zeros(600, np.int64),
        row_sizes=np.array([700]),
    )
    rows = judge_uniformity(clean, calibration)
    assert [row.detector for row in rows] == ["one", FUSED]
    assert [row.bound for row in rows] == [bound(800, 600), bound(700, 600)]
    return tuple(row.is_beyond for row in rows)


def test_images_like_those_of_the_calibration_stay_within_the_bound_and_others_do_not() -> None:
    assert all(judged(0.0, seed=seed) == (False, False) for seed in range(5))
    assert judged(0.5) == (True, True)


def test_rows_of_classes_are_ranked_each_in_its_own() -> None:
    draws = np.random.default_rng(0)
    scale = np.array([1.0, 30.0])
    labels = [draws.integers(0, 2, count) for count in (800, 700, 600)]
    first, second, fresh = (
        (scale[classes] * draws.exponential(size=len(classes))).astype(np.float32)[:, None] for classes in labels
    )
    calibration = Calibration.from_clean(first, second, by_class=ByClass.of(labels[1], 2, 19))
    rows = calibration.rows
    clean = Decisions(
        labels=labels[2],
        scores={"one": fresh[:, 0].astype(np.float64), FUSED: calibration.suspicion(fresh, labels[2])},
        p_values={FUSED: calibration.fused_p_values(fresh, labels[2])},
        ranked_in=rows.of_labels(labels[2]),
        row_sizes=rows.sizes,
    )
    assert [row.is_beyond for row in judge_uniformity(clean, calibration)] == [False, False]
