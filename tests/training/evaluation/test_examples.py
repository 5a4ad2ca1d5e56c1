"""Which attacked images the page shows, and the figures beside their counts."""

import dataclasses

import numpy as np
import pytest

from service.detection.engine import Engine
from tests import tiny
from tests.training.evaluation import small
from training.evaluation.decisions import FUSED, decide
from training.evaluation.evaluate import Evaluation
from training.evaluation.examples import worst_misses
from training.evaluation.judging import Attacked, Subject
from training.evaluation.report import page
from training.evaluation.summary import words


@pytest.fixture(scope="module")
def subject(engine: Engine) -> Subject:
    test = small.held_out(8)
    return Subject(
        images=test.images,
        truth=test.labels,
        clean=decide(engine, test.images),
        weights=np.ones((3, 8), np.float32),
    )


def attacked(subject: Subject, title: str, p: dict[int, float], *, is_adaptive: bool = True) -> Attacked:
    """Wrong on the images of these numbers, with these p-values."""
    labels, values = subject.clean.labels.copy(), np.full(8, 0.9)
    for row, value in p.items():
        labels[row], values[row] = (labels[row] + 1) % 4, value
    return Attacked(
        entry=dataclasses.replace(small.NOTHING, title=title, is_adaptive=is_adaptive),
        images=subject.images,
        decisions=dataclasses.replace(subject.clean, labels=labels, p_values={**subject.clean.p_values, FUSED: values}),
        disagreements=0,
        seconds=0.0,
    )


def test_the_worst_misses_are_the_accepted_wrong_ones_that_raise_least_suspicion(subject: Subject) -> None:
    attacks = [
        attacked(subject, "first", {0: 0.2, 1: 0.5, 2: 1 / 300}),  # the last is rejected at 1 %
        attacked(subject, "second", {0: 0.3, 3: 0.1}),
        attacked(subject, "blind", {4: 0.8}, is_adaptive=False),
    ]
    found = worst_misses(subject, attacks, tiny.CLASSES, 0.01)
    assert [(one.attack, one.attacked_p) for one in found] == [("first", 0.5), ("second", 0.3), ("second", 0.1)]
    assert all(one.succeeded and one.attacked_label != one.truth for one in found)


def test_there_are_six_of_them_at_most_and_none_without_such_attacks(subject: Subject) -> None:
    every = attacked(subject, "every", dict.fromkeys(range(8), 0.5))
    assert len(worst_misses(subject, [every], tiny.CLASSES, 0.01)) == 6
    blind = attacked(subject, "blind", {4: 0.8}, is_adaptive=False)
    assert worst_misses(subject, [blind], tiny.CLASSES, 0.01) == ()


@pytest.fixture(scope="module")
def evaluation(engine: Engine) -> Evaluation:
    return small.run(engine, (small.NOTHING,))


def test_every_operating_point_is_on_the_page_with_its_counts(engine: Engine, evaluation: Evaluation) -> None:
    html = page(small.report(engine, evaluation), evaluation).replace("\N{NO-BREAK SPACE}", " ")
    for alpha in ("0.1", "0.5", "1", "5"):
        assert f"Found, of all, at {alpha} %" in html
        assert f"Accepted and wrong at {alpha} %" in html
    for largest in ("1", "5", "10", "20"):
        assert f"pAUC up to {largest} %" in html
    assert "60<small>0, 60, 0</small>" in html
    assert "0.100</td>" in html  # a coin's pAUC up to 20 %


def test_shares_of_few_images_are_fractions_everywhere(engine: Engine, evaluation: Evaluation) -> None:
    report = small.report(engine, evaluation)
    assert "clean accuracy 60 of 60, 60 test images\n" in words(report)
    assert "nothing: succeeds on 0 of 60; of these found none at 0.005" in words(report)
    assert "<b>60 of 60</b>" in page(report, evaluation)
