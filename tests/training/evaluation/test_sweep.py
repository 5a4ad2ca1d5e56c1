"""What growing changes and longer attacks say."""

import dataclasses

import numpy as np
import pytest

from service.detection.engine import Engine
from tests.training.evaluation import small
from tests.training.evaluation.growing import ALPHA, POINTS, convergence, point
from training.evaluation.decisions import Decisions
from training.evaluation.evaluate import Evaluation
from training.evaluation.judging import Attacked
from training.evaluation.metrics import Range
from training.evaluation.remarks import remarks
from training.evaluation.report import page
from training.evaluation.sweep import breaks_at, half, last_gain, suspects
from training.evaluation.verdict import rejection_sentence, verdict_sentences


def test_the_half_of_a_change_is_the_point_at_half_its_share() -> None:
    assert half(POINTS, POINTS[2]) is POINTS[1]
    assert half(POINTS, POINTS[0]) is None


@pytest.mark.parametrize(
    ("strict", "is_suspect"), [(0.87, True), (0.84, False), (0.5, False)], ids=["above", "within-interval", "below"]
)
def test_more_than_the_classifier_at_half_the_change_is_suspect(strict: float, is_suspect: bool) -> None:
    points = (point(0.5, 0.8), point(1.0, 0.5, 0.95, strict))
    assert suspects(points, ALPHA) == ([points[1]] if is_suspect else [])
    assert suspects(points, 0.01) == []


def test_it_breaks_at_the_smallest_change_that_leaves_less_than_a_tenth() -> None:
    points = (point(0.5, 0.8, 0.9), point(1.0, 0.05, 0.1), point(1.5, 0.0, 0.09), point(2.0, 0.0, 0.0))
    assert breaks_at(points, ALPHA) is points[2]
    assert breaks_at(POINTS, ALPHA) is None
    assert breaks_at((point(0.25, 0.0),), ALPHA) is None  # nobody who knows the detectors was there


def test_the_last_gain_is_that_of_the_steps_not_of_the_restarts() -> None:
    assert last_gain(convergence(0.2, 0.5, 0.53)) == pytest.approx(0.03)
    assert last_gain(convergence(0.2)) == 0.0


@pytest.fixture(scope="module")
def evaluation(engine: Engine) -> Evaluation:
    return dataclasses.replace(small.run(engine, (small.NOTHING,)), sweep=POINTS, convergence=convergence(0.2, 0.5))


def test_the_report_warns_of_both(evaluation: Evaluation) -> None:
    quiet = dataclasses.replace(evaluation, sweep=(POINTS[3],), convergence=convergence(0.5, 0.505))
    for one, is_told in ((evaluation, False), (quiet, False)):
        words = " ".join(remarks(one, alpha=ALPHA, publishable=True))
        assert ("suspect, attack harder" in words) == is_told
        assert ("still gained 30.0 points" in words) == (one is evaluation)
    high = dataclasses.replace(evaluation, sweep=(point(0.5, 0.5), point(1.0, 0.4, 0.9)))
    assert "suspect, attack harder: within 1 budgets" in " ".join(remarks(high, alpha=ALPHA, publishable=True))


def test_the_page_shows_them_and_says_where_it_breaks(engine: Engine, evaluation: Evaluation) -> None:
    report = small.report(engine, evaluation)
    html = page(report, evaluation)
    assert "Growing changes" in html
    assert "Had the attacks come to their end?" in html
    broken = dataclasses.replace(report, sweep=(*POINTS[:3], point(2.0, 0.0, 0.02)))
    assert rejection_sentence(broken, ALPHA).startswith("Within L∞ 0.2 (51/255) fewer than 10 % of the images")
    assert rejection_sentence(report, ALPHA).startswith("Within L∞ 0.2 (51/255) 30.0 % stay right or are rejected")
    assert rejection_sentence(dataclasses.replace(report, sweep=()), ALPHA) == ""


def test_the_verdict_is_three_sentences_and_claims_nothing_that_was_not_tested(
    engine: Engine, evaluation: Evaluation
) -> None:
    report = dataclasses.replace(small.report(engine, evaluation), sweep=())
    untouched, knowing, breaking = verdict_sentences(report, ALPHA)
    assert untouched.startswith("It names 60 of 60 of untouched images rightly and calls")
    assert "was not tested: assume that he does" in knowing
    assert breaking == "No attack broke it: attack harder before you believe it."
    suspect = dataclasses.replace(report, sweep=(point(0.5, 0.5), point(1.0, 0.4, 0.9)))
    assert "attack harder before you rely on them" in verdict_sentences(suspect, ALPHA)[2]
    assert "too few calibration images" in verdict_sentences(report, None)[0]


def test_an_attack_on_some_images_keeps_its_places_among_fewer() -> None:
    images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1)
    decisions = Decisions(
        labels=np.arange(3),
        scores={},
        p_values={},
        ranked_in=np.zeros(3, np.int64),
        row_sizes=np.array([9]),
    )
    taken = np.array([1, 3, 4])
    one = Attacked(
        entry=small.NOTHING, images=images[taken], decisions=decisions, disagreements=0, seconds=0.0, rows=taken
    )
    fewer = one.among(np.array([0, 3, 4, 5]))
    assert fewer.rows is not None
    assert fewer.rows.tolist() == [1, 2]
    np.testing.assert_array_equal(fewer.images, images[[3, 4]])
    assert fewer.decisions.labels.tolist() == [1, 2]
    assert fewer.spread(np.array([True, False]), 4).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("count", "words"),
    [(3, "no more than the 5 % promised"), (5, "within the scatter"), (60, "more than the 5 % promised")],
)
def test_the_verdict_says_how_false_alarms_keep_the_promise(engine: Engine, count: int, words: str) -> None:
    report = small.report(engine, small.run(engine, (small.NOTHING,)))
    row = next(row for row in report.false_positives if row.alpha == ALPHA)
    measured = dataclasses.replace(
        row, count=count, rate=count / 80, images=80, images_needed=None, promised_95=Range(low=0, high=9)
    )
    first, *_ = verdict_sentences(dataclasses.replace(report, false_positives=(measured,)), ALPHA)
    assert words in first
