import numpy as np
import pytest

from tests import reference
from training.evaluation.bootstrap import auroc_estimate, draw_weights, share_estimate, weighted_aurocs


@pytest.mark.parametrize("ties", [False, True], ids=["no-ties", "ties"])
def test_weights_give_the_auroc_of_the_repeated_images(ties: bool) -> None:
    generator = np.random.default_rng(0)
    attacked, clean = generator.normal(0.5, 1, 20), generator.normal(0, 1, 20)
    if ties:
        attacked, clean = attacked.round(), clean.round()
    weights = draw_weights(20, 1, resamples=15)
    expected = reference.bootstrap_aurocs(attacked, clean, weights)
    assert weighted_aurocs(attacked, clean, weights, weights) == pytest.approx(expected, abs=1e-12)


def test_every_resample_draws_as_many_images_as_there_are() -> None:
    assert (draw_weights(31, 0, resamples=50).sum(axis=1) == 31).all()


def test_a_share_has_the_binomials_spread() -> None:
    hits = np.arange(400) < 100
    found = share_estimate(hits, np.ones(400, bool), draw_weights(400, 2))
    assert found.value == 0.25
    assert found.interval is not None
    spread = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert found.interval.low == pytest.approx(0.25 - spread, abs=0.01)
    assert found.interval.high == pytest.approx(0.25 + spread, abs=0.01)


def test_without_images_there_is_neither_figure_nor_interval() -> None:
    none, every = np.zeros(5, bool), np.ones(5, bool)
    weights = draw_weights(5, 0, resamples=10)
    assert share_estimate(every, none, weights).value is None
    assert auroc_estimate(np.ones(5), np.ones(5), weights, positives=none, negatives=every).interval is None


def test_an_untouched_image_pairs_with_itself_in_every_resample() -> None:
    scores = np.random.default_rng(3).normal(size=60)
    every = np.ones(60, bool)
    found = auroc_estimate(scores, scores, draw_weights(60, 0), positives=every, negatives=every)
    assert found.value == 0.5
    assert found.interval is not None
    assert found.interval.low == pytest.approx(0.5)
    assert found.interval.high == pytest.approx(0.5)
