import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from service.detection.engine import Engine
from service.detection.rows import rejects
from service.detection.types import Verdict
from tests import reference, tiny
from training.evaluation.judging import breaking_change
from training.evaluation.metrics import (
    auroc,
    binomial_range,
    partial_auroc,
    promised_range,
    roc_points,
    tpr_at_fpr,
)


def scores(seed: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    attacked, clean = generator.normal(0.7, 1, 40), generator.normal(0, 1, 55)
    return (attacked.round(0), clean.round(0)) if ties else (attacked, clean)


@pytest.mark.parametrize("ties", [False, True], ids=["no-ties", "ties"])
@pytest.mark.parametrize("seed", range(4))
def test_auroc_is_the_rank_statistic(seed: int, ties: bool) -> None:
    attacked, clean = scores(seed, ties=ties)
    truth = np.r_[np.ones(40), np.zeros(55)]
    assert auroc(attacked, clean) == pytest.approx(reference.auroc(attacked, clean), abs=1e-12)
    assert auroc(attacked, clean) == pytest.approx(roc_auc_score(truth, np.r_[attacked, clean]), abs=1e-12)


def test_equal_sets_give_exactly_one_half() -> None:
    clean = np.random.default_rng(0).normal(size=333)
    assert auroc(clean[::-1].copy(), clean) == 0.5


def test_a_score_that_is_not_finite_is_the_most_suspicious() -> None:
    assert auroc(np.array([np.nan, np.inf]), np.array([1.0, 2.0])) == 1.0


def test_without_images_there_is_no_figure() -> None:
    none = np.zeros(0)
    assert auroc(none, np.ones(3)) is None
    assert tpr_at_fpr(none, np.ones(3), 0.1) is None
    assert partial_auroc(np.ones(3), none, 0.1) is None


@pytest.mark.parametrize("ties", [False, True], ids=["no-ties", "ties"])
@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.2, 1.0])
def test_tpr_at_fpr_is_the_best_that_any_threshold_gives(fpr: float, ties: bool) -> None:
    attacked, clean = scores(5, ties=ties)
    rates = roc_curve(np.r_[np.ones(40), np.zeros(55)], np.r_[attacked, clean], drop_intermediate=False)
    best = rates[1][rates[0] <= fpr + 1e-12].max()
    assert tpr_at_fpr(attacked, clean, fpr) == pytest.approx(best)
    assert tpr_at_fpr(attacked, clean, fpr) == pytest.approx(reference.tpr_at_fpr(attacked, clean, fpr))


@pytest.mark.parametrize("largest", [0.05, 0.2, 1.0])
def test_partial_auroc_is_scikit_learns_area_before_it_rescales(largest: float) -> None:
    attacked, clean = scores(6, ties=True)
    truth, values = np.r_[np.ones(40), np.zeros(55)], np.r_[attacked, clean]
    rescaled = roc_auc_score(truth, values, max_fpr=largest)
    least = largest**2 / 2
    area = rescaled if largest == 1 else (2 * rescaled - 1) * (largest - least) + least
    assert partial_auroc(attacked, clean, largest) == pytest.approx(area / largest)


def test_the_area_under_the_roc_points_is_the_auroc() -> None:
    attacked, clean = scores(7, ties=True)
    fpr, tpr = roc_points(attacked, clean)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tpr, fpr) == pytest.approx(auroc(attacked, clean))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_whole_ranks_say_what_the_verdict_says(engine: Engine, alpha: float) -> None:
    images = np.concatenate([tiny.images(200, seed=9), tiny.odd_image()[None]])
    measured = engine.measure(images)
    rows = engine.bundle.calibration.rows
    fired = rejects(measured.fused_p_value, rows.of_labels(measured.labels), rows.sizes, alpha)
    verdicts = [d.verdict is Verdict.ADVERSARIAL for d in engine.detect(images, alpha=alpha)]
    assert fired.tolist() == verdicts


@pytest.mark.parametrize(("count", "rate"), [(100, 0.05), (2000, 0.001), (50, 0.0), (50, 1.0), (5000, 0.3)])
def test_binomial_range_is_scipys(count: int, rate: float) -> None:
    found = binomial_range(count, rate)
    assert (found.low, found.high) == stats.binom.interval(0.95, count, rate)


@pytest.mark.parametrize(("count", "alpha", "n"), [(1000, 0.05, 299), (540, 0.01, 199), (10000, 0.001, 2000)])
def test_promised_range_is_beta_binomial_and_wider(count: int, alpha: float, n: int) -> None:
    rank = int(alpha * (n + 1) + 1e-9)
    found = promised_range(np.array([count]), alpha, np.array([n]))
    assert (found.low, found.high) == stats.betabinom.interval(0.95, count, rank, n + 1 - rank)
    assert found.high > binomial_range(count, alpha).high


def test_the_breaking_change_leaves_fewer_than_a_tenth_right() -> None:
    change = np.arange(1.0, 21.0)
    right, wrong = np.ones(20, bool), np.ones(20, bool)
    right[0] = False  # misread without any change
    # within 19 there are 18 changed and the one that needs none: 1 of 20 stays right
    assert breaking_change(change, right, wrong) == 19
    assert np.mean(change > 19) < 0.1 <= np.mean(change > 18)
    assert breaking_change(change, right, wrong, budget=7.0) == 7
    wrong[10:] = False
    assert breaking_change(change, right, wrong, budget=7.0) is None
    assert breaking_change(change, right, wrong) is None
