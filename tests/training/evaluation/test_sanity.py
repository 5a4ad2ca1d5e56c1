"""The checks that an evaluation makes of itself can fail."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.detection.engine import Engine
from tests.training.evaluation import small
from tests.training.evaluation.growing import POINTS
from training.evaluation.bootstrap import Estimate
from training.evaluation.decisions import FUSED
from training.evaluation.evaluate import Evaluation
from training.evaluation.judging import Subject
from training.evaluation.records import Check, SweepPoint
from training.evaluation.remarks import remarks
from training.evaluation.report import page
from training.evaluation.sanity import judge_sanity


@pytest.fixture(scope="module")
def evaluation(engine: Engine) -> Evaluation:
    return small.run(engine, (small.NOTHING,))


@pytest.fixture(scope="module")
def subject(engine: Engine) -> Subject:
    return small.subject(engine, 40)


class Steps(nn.Module):
    """Logits without a gradient anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        return 0 * images.flatten(1)[:, :4] + self.weight


def share(value: float, n: int = 400) -> Estimate:
    return Estimate(value=value, interval=None, n=n)


def checks(
    engine: Engine,
    subject: Subject,
    evaluation: Evaluation,
    *,
    model: nn.Module | None = None,
    sweep: tuple[SweepPoint, ...] = (),
) -> dict[str, bool]:
    found = judge_sanity(engine, model or small.Twin().eval(), subject, evaluation.attacks, sweep, seed=0)
    return {check.name: check.passed for check in found}


def test_a_sound_evaluation_passes(engine: Engine, subject: Subject, evaluation: Evaluation) -> None:
    found = checks(engine, subject, evaluation, sweep=POINTS)
    assert len(found) == 4
    assert all(found.values())


def test_a_model_without_gradients_fails(engine: Engine, subject: Subject, evaluation: Evaluation) -> None:
    assert not checks(engine, subject, evaluation, model=Steps())["Gradients are there"]


def test_answers_that_change_fail(engine: Engine, subject: Subject, evaluation: Evaluation) -> None:
    scores = {**subject.clean.scores, FUSED: subject.clean.scores[FUSED] + 1e-3}
    other = dataclasses.replace(subject, clean=dataclasses.replace(subject.clean, scores=scores))
    assert not checks(engine, other, evaluation)["The same image gets the same answer"]


def test_more_right_at_a_larger_change_fails(engine: Engine, subject: Subject, evaluation: Evaluation) -> None:
    rising = tuple(
        dataclasses.replace(point, alone=share(value))
        for point, value in zip(POINTS, np.linspace(0.2, 0.9, len(POINTS)), strict=True)
    )
    name = "Larger changes break no fewer images"
    assert not checks(engine, subject, evaluation, sweep=rising)[name]
    even = tuple(dataclasses.replace(point, alone=share(0.5)) for point in POINTS)
    assert checks(engine, subject, evaluation, sweep=even)[name]


def test_random_search_that_breaks_more_fails(engine: Engine, subject: Subject, evaluation: Evaluation) -> None:
    (plain,) = evaluation.attacks
    pgd = dataclasses.replace(plain, name="pgd", norm="linf", eps=0.1, accuracy=share(0.7))
    for rest, expected in ((0.2, False), (0.69, True), (0.9, True)):
        square = dataclasses.replace(pgd, name="square", accuracy=share(rest))
        both = dataclasses.replace(evaluation, attacks=(pgd, square))
        name = "Gradients break no fewer images than random search, L∞"
        assert checks(engine, subject, both)[name] is expected


def test_an_attack_that_gets_nowhere_with_any_change_fails(
    engine: Engine, subject: Subject, evaluation: Evaluation
) -> None:
    name = "A change of any size fools"
    assert checks(engine, subject, evaluation, model=small.Twin().eval())[name]
    assert not checks(engine, subject, evaluation, model=Steps())[name]


def test_a_failed_check_is_said_first_and_loudly(engine: Engine, evaluation: Evaluation) -> None:
    failed = Check(name="Gradients are there", passed=False, words="40.0 % of the images have none")
    spoilt = dataclasses.replace(evaluation, sanity=(*evaluation.sanity, failed))
    said = " ".join(remarks(spoilt, alpha=0.05, publishable=True))
    assert "robustness is not established: gradients are there: 40.0 % of the images have none" in said
    text = page(small.report(engine, spoilt), spoilt)
    assert text.index("✗ failed") < text.index("✓ passed")
    assert "Robustness is not established" not in page(small.report(engine, evaluation), evaluation)
