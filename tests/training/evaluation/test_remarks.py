"""What the report says of its own figures."""

import dataclasses

import pytest

from service.detection.engine import Engine
from tests.training.evaluation import small
from training.evaluation.evaluate import Evaluation
from training.evaluation.remarks import remarks
from training.evaluation.results import AttackResult

ALPHA = 0.05


@pytest.fixture(scope="module")
def evaluation(engine: Engine) -> Evaluation:
    return small.run(engine, (small.NOTHING,))


def told(evaluation: Evaluation, *, in_tracks: bool = False) -> str:
    return " ".join(remarks(evaluation, alpha=ALPHA, publishable=True, in_tracks=in_tracks))


def test_images_in_tracks_make_intervals_too_narrow(evaluation: Evaluation) -> None:
    assert "too narrow" in told(evaluation, in_tracks=True)
    assert "too narrow" not in told(evaluation)


def attack(evaluation: Evaluation, name: str, passed: float, *, success: float = 0.5) -> AttackResult:
    """An attack with this share of images accepted and wrong at every rate; adaptive ones by their name."""
    one = evaluation.attacks[0]
    rates = tuple(
        dataclasses.replace(row, all=dataclasses.replace(row.all, value=passed)) for row in one.accepted_and_wrong
    )
    return dataclasses.replace(
        one,
        name=name,
        is_adaptive=name.startswith("adaptive"),
        accepted_and_wrong=rates,
        success_rate=dataclasses.replace(one.success_rate, value=success),
    )


@pytest.mark.parametrize(
    ("passed", "is_told"),
    [
        ({"adaptive_selective": 0.5, "adaptive_square": 0.6}, True),
        ({"adaptive_selective": 0.5, "adaptive_square": 0.505}, False),
        ({"adaptive_selective": 0.2, "adaptive_lagrangian": 0.6, "adaptive_square": 0.5}, False),
        ({"pgd": 0.3}, False),
    ],
    ids=["random-search-wins", "within-noise", "best-of-the-guided", "none-adaptive"],
)
def test_random_search_that_wins_is_a_sign_of_masked_gradients(
    evaluation: Evaluation, passed: dict[str, float], is_told: bool
) -> None:
    attacks = tuple(attack(evaluation, name, rate) for name, rate in passed.items())
    words = told(dataclasses.replace(evaluation, attacks=attacks))
    assert ("random search gets more images accepted and wrong" in words) == is_told


@pytest.mark.parametrize(
    ("unaware", "eps", "is_told"), [(0.7, 0.0, True), (0.505, 0.0, False), (0.7, 0.1, False)], ids=str
)
def test_knowing_more_and_reaching_less_is_a_sign_of_weak_attacks(
    evaluation: Evaluation, unaware: float, eps: float, is_told: bool
) -> None:
    """Only attacks of the same budget are held against each other."""
    blind = dataclasses.replace(attack(evaluation, "pgd", unaware), eps=eps)
    attacks = (blind, attack(evaluation, "adaptive_selective", 0.5))
    words = told(dataclasses.replace(evaluation, attacks=attacks))
    assert ("the latter were too weak" in words) == is_told


def test_more_steps_that_break_fewer_images_are_a_warning(evaluation: Evaluation) -> None:
    for success, is_told in ((0.3, True), (0.6, False)):
        attacks = (attack(evaluation, "fgsm", 0.1), attack(evaluation, "pgd", 0.1, success=success))
        words = told(dataclasses.replace(evaluation, attacks=attacks))
        assert ("pgd breaks fewer images than fgsm" in words) == is_told
