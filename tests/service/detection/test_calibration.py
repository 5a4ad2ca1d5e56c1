"""Scores to p-values: the promised rate, and every trap on the way to it."""

import math
import re

import numpy as np
import pytest

from service.detection.calibration import Calibration, alpha_rank, images_needed, p_values, smooth_log_p
from service.errors import InvalidRequest


def calibration(n: int, detectors: int = 2) -> Calibration:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, n, detectors)).astype(np.float32)
    return Calibration.from_clean(first, second)


def test_a_rank_survives_the_rounding_of_its_alpha() -> None:
    assert 0.29 * 100 < 29  # the trap
    assert alpha_rank(0.29, 99) == 29
    assert images_needed(0.29) == 3


@pytest.mark.parametrize("alpha", [0.001, 0.005, 0.01, 0.05, 0.1])
def test_as_many_images_as_are_needed_are_enough(alpha: float) -> None:
    needed = images_needed(alpha)
    assert alpha_rank(alpha, needed) == 1
    assert alpha_rank(alpha, needed - 1) == 0


def test_999_images_serve_a_thousandth_and_998_say_what_they_lack() -> None:
    calibration(999).check_alpha(0.001, largest=0.1)
    with pytest.raises(InvalidRequest, match="needs 999 calibration images, the bundle has 998"):
        calibration(998).check_alpha(0.001, largest=0.1)


@pytest.mark.parametrize("alpha", [math.nan, 0.0, -0.1, 0.2, math.inf])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(InvalidRequest, match=r"expected 0\.01 to 0\.1") as caught:
        calibration(99).check_alpha(alpha, largest=0.1)
    assert caught.value.field == "options.target_fpr"


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.29])
def test_the_rate_over_many_calibrations_is_k_over_n_plus_1(alpha: float) -> None:
    generator = np.random.default_rng(1)
    n, repeats = 150, 2000
    draws = generator.exponential(size=(repeats, n + 1))
    fired = [p_values(row[-1:], np.sort(row[:-1]))[0] <= alpha + 1e-12 for row in draws]
    rate = alpha_rank(alpha, n) / (n + 1)
    assert abs(np.mean(fired) - rate) <= 3 * math.sqrt(rate * (1 - rate) / repeats)


@pytest.mark.parametrize("n", [99, 199, 299, 998, 2999])
def test_the_alpha_that_an_error_advises_is_taken(n: int) -> None:
    with pytest.raises(InvalidRequest, match="ask for") as caught:
        calibration(n).check_alpha(0.9 / (n + 1), largest=0.1)
    advised = re.search(r"ask for (\S+) or more", str(caught.value))
    assert advised is not None
    calibration(n).check_alpha(float(advised[1]), largest=0.1)


@pytest.mark.parametrize("alpha", [1e-10, 1e-300, 5e-324])
def test_an_alpha_of_almost_nothing_is_refused_in_one_short_line(alpha: float) -> None:
    with pytest.raises(InvalidRequest, match="needs over a billion calibration images") as caught:
        calibration(99).check_alpha(alpha, largest=0.1)
    assert len(str(caught.value)) < 200


def test_a_tie_counts_as_at_least_as_suspicious() -> None:
    clean = np.array([1, 2, 2, 2, 3], np.float32)
    assert p_values(np.array([2.0]), clean)[0] == 5 / 6
    assert p_values(np.full(3, 7.0), np.full(9, 7.0, np.float32)).tolist() == [1, 1, 1]


def test_p_falls_as_the_score_grows() -> None:
    clean = np.sort(np.random.default_rng(2).normal(size=200))
    p = p_values(np.linspace(-5, 5, 1001), clean)
    assert (np.diff(p) <= 0).all()
    assert p.max() == 1
    assert p.min() == 1 / 201


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_counts_as_larger_than_all(score: float) -> None:
    clean = np.arange(9, dtype=np.float32)
    assert p_values(np.array([score]), clean)[0] == 0.1
    assert smooth_log_p(np.array([score]), clean)[0] == -np.inf


def test_p_is_the_slow_count() -> None:
    generator = np.random.default_rng(3)
    clean = np.sort(generator.integers(0, 20, 60)).astype(np.float32)
    scores = generator.integers(-2, 22, 100).astype(np.float32)
    slow = [(1 + sum(c >= score for c in clean)) / 61 for score in scores]
    assert np.allclose(p_values(scores, clean), slow)


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "tied"])
def test_the_smooth_log_p_is_log_p_at_the_knots(ties: bool) -> None:
    generator = np.random.default_rng(4)
    clean = np.sort(generator.integers(0, 30, 300) if ties else generator.normal(size=300)).astype(np.float64)
    assert np.allclose(smooth_log_p(clean, clean), np.log(p_values(clean, clean)))


def test_the_smooth_log_p_is_continuous_and_falls_for_ever() -> None:
    clean = np.sort(np.random.default_rng(5).exponential(size=500))
    grid = np.linspace(-1, 4 * clean[-1], 200_001)
    values = smooth_log_p(grid, clean)
    steps = np.diff(values)
    assert (steps <= 1e-12).all()
    top = np.log(p_values(clean, clean))
    steepest = np.max(-np.diff(top) / np.maximum(np.diff(clean), 1e-12))
    assert -steps.min() <= steepest * (grid[1] - grid[0]) * 1.01  # no jump
    assert values[-1] < math.log(1 / 501) - 1


@pytest.mark.parametrize("clean", [[3.0], [3.0, 3.0, 3.0], [1.0, 2.0]], ids=str)
def test_few_or_equal_scores_still_give_an_order(clean: list[float]) -> None:
    values = smooth_log_p(np.array([0.0, 3.0, 4.0, 5.0]), np.array(clean))
    assert (np.diff(values) <= 0).all()
    assert values[3] < values[2]


def test_the_fused_rate_holds_for_copies_of_one_detector_and_fishers_table_does_not() -> None:
    generator = np.random.default_rng(6)
    copies, n, alpha, repeats = 4, 199, 0.05, 400
    fused_fired = table_fired = 0
    # P(chi-square with 8 degrees of freedom > 15.507) = 0.05
    table = 15.507
    for _ in range(repeats):
        first, second, new = (np.repeat(generator.normal(size=(m, 1)), copies, 1) for m in (n, n, 20))
        made = Calibration.from_clean(first.astype(np.float32), second.astype(np.float32))
        scores = new.astype(np.float32)
        fused_fired += int((made.fused_p_values(scores, np.zeros(len(scores), np.int64)) <= alpha + 1e-12).sum())
        table_fired += int((-2 * np.log(made.p_values(scores)).sum(axis=1) > table).sum())
    total = repeats * 20
    assert fused_fired / total == pytest.approx(0.05, abs=0.012)  # 20 images share a calibration: not binomial
    assert table_fired / total > 0.1


def test_a_threshold_flags_what_the_p_value_flags() -> None:
    made = calibration(199)
    row = made.detector_scores[0]
    threshold = made.threshold(0, 0.05)
    scores = np.concatenate([row, row + 1e-4, np.linspace(-5, 5, 100, dtype=np.float32)])
    by_p = np.round(p_values(scores, row) * 200) <= 10
    assert np.array_equal(scores > threshold, by_p)
    assert made.threshold(0, 0.001) is None


def test_a_calibration_survives_its_file() -> None:
    made = calibration(50)
    read = Calibration.from_bytes(made.to_bytes())
    assert np.array_equal(read.detector_scores, made.detector_scores)
    assert np.array_equal(read.fused_scores, made.fused_scores)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fused_scores": np.array([1, np.nan], np.float32)}, "not finite"),
        ({"fused_scores": np.array([2, 1], np.float32)}, "not in rising order"),
        ({"fused_scores": np.array([], np.float32)}, "expected float32 of 1 axes"),
        ({"fused_scores": np.array([1.0, 2.0])}, "expected float32"),
        ({"detector_scores": np.array([[1, 2], [2, 1]], np.float32)}, "not in rising order"),
        ({"detector_scores": np.array([1, 2], np.float32)}, "expected float32 of 2 axes"),
    ],
    ids=["nan", "unsorted", "empty", "float64", "row unsorted", "axes"],
)
def test_a_calibration_that_is_none_is_refused(change: dict[str, np.ndarray], says: str) -> None:
    good = {"detector_scores": np.zeros((2, 3), np.float32), "fused_scores": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=says):
        Calibration(**{**good, **change})
