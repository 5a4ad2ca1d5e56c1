"""Each attack finds what is there on a toy, keeps to the budget, and learns from what is refused."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from deploy.redteam.adaption import Bisection, redrawn
from deploy.redteam.disguise import BLINDS, Blinded, Careful
from deploy.redteam.hop_skip_jump import HopSkipJumpSearch
from deploy.redteam.nes import NesSearch
from deploy.redteam.search import Answer, Attack, driven, linf, rounded
from deploy.redteam.square import SquareSearch
from service.detection.types import Bytes8
from tests.deploy.redteam import toy

QUERIES = 1500
ATTACKS: dict[str, Attack] = {
    "square": SquareSearch(queries=QUERIES),
    "nes": NesSearch(),
    "hop_skip_jump": HopSkipJumpSearch(),
    "hop_skip_jump_l2": HopSkipJumpSearch(norm="l2"),
}
ADAPTED: dict[str, Attack] = {
    "square": SquareSearch(queries=QUERIES, adapts=True),
    "nes": NesSearch(adapts=True),
    "hop_skip_jump": HopSkipJumpSearch(adapts=True),
}


@pytest.mark.parametrize("attack", [pytest.param(one, id=name) for name, one in ATTACKS.items() if "l2" not in name])
def test_it_finds_an_image_within_the_budget_where_there_is_one(attack: Attack) -> None:
    first = toy.found(attack, toy.goal(), toy.oracle, QUERIES)
    assert first is not None
    assert first > 1, "the clean image itself has not won"


@pytest.mark.parametrize("attack", [pytest.param(one, id=name) for name, one in ATTACKS.items()])
def test_it_finds_none_where_there_is_none(attack: Attack) -> None:
    assert toy.found(attack, toy.goal(eps=7), toy.oracle, 300) is None


def test_a_walk_in_l2_changes_the_corner_alone() -> None:
    goal, best = toy.goal(), math.inf

    def listening(images: Bytes8) -> list[Answer]:
        nonlocal best
        answers = toy.oracle(images)
        for image, answer in zip(images, answers, strict=True):
            if goal.won(answer):
                best = min(best, float(np.linalg.norm(image.astype(float) - goal.image)))
        return answers

    driven(ATTACKS["hop_skip_jump_l2"].search(goal, np.random.default_rng(0)), listening, QUERIES)
    shortest = 8 * math.sqrt(6 * 6 * 3)
    assert shortest <= best < 2 * shortest < 80 * toy.SIDE


@pytest.mark.parametrize("attack", [ATTACKS["square"], ADAPTED["square"]], ids=["plain", "adapted"])
def test_every_proposal_of_a_search_over_squares_is_in_the_ball(attack: Attack) -> None:
    goal = toy.goal(eps=3)

    def checking(images: Bytes8) -> list[Answer]:
        assert (linf(images, goal.image) <= goal.eps).all()
        return toy.oracle(images)

    assert driven(attack.search(goal, np.random.default_rng(0)), checking, 200) >= 200


@pytest.mark.parametrize("attack", [pytest.param(one, id=name) for name, one in ADAPTED.items()])
def test_an_adapted_attack_wins_where_images_of_the_same_pixels_are_refused(attack: Attack) -> None:
    """A server that refuses an image whose pixels are mostly those of one before it, as a fingerprint does."""

    def same_pixels(image: Bytes8, kept: Sequence[Bytes8]) -> bool:
        return any((image == one).mean() > 0.9 for one in kept[-50:])

    adapted = toy.Watched(same_pixels)
    assert toy.found(attack, toy.goal(), adapted, QUERIES) is not None


def test_an_adapted_square_search_is_refused_less_often_than_a_plain_one() -> None:
    def same_pixels(image: Bytes8, kept: Sequence[Bytes8]) -> bool:
        return any((image == one).mean() > 0.6 for one in kept[-50:])

    plain, adapted = toy.Watched(same_pixels), toy.Watched(same_pixels)
    toy.found(ATTACKS["square"], toy.goal(eps=7), plain, 600)
    toy.found(ADAPTED["square"], toy.goal(eps=7), adapted, 600)
    assert np.mean(adapted.refused[-300:]) < 0.8 * np.mean(plain.refused[-300:])


def test_a_loss_falls_with_the_margin_and_with_what_the_verdict_lacks() -> None:
    goal = toy.goal()
    wrong = Answer(label=1, is_accepted=False, probabilities=np.array([0.1, 0.9]), p_value=0.01, alpha=toy.ALPHA)
    assert goal.loss(wrong) == pytest.approx(math.log(5))
    assert goal.loss(replace(wrong, excess=2.5)) == 2.5, "the statistic where it is known"
    assert goal.loss(replace(wrong, label=0, probabilities=np.array([0.9, 0.1]))) == pytest.approx(math.log(45))
    assert goal.loss(replace(wrong, is_accepted=True)) == 0.0
    assert goal.loss(Answer(is_refused=True)) == math.inf
    assert [goal.loss(Answer(label=label, is_accepted=True)) for label in (0, 1)] == [1.0, 0.0]


def test_bisection_finds_the_least_value_that_is_recognised_seldom_enough() -> None:
    images: list[Bytes8] = []

    def probe(value: float) -> Bytes8:
        return np.full((2, 2, 1), int(value), np.uint8)

    def ask(asked: Bytes8) -> list[Answer]:
        images.extend(asked)
        return [Answer(is_flagged=image[0, 0, 0] < 37) for image in asked]

    assert (
        toy.result(Bisection(low=10, high=100, rounds=10, samples=5, target=0.0, is_whole=True).least(probe), ask) == 37
    )
    assert len(images) <= 50


def test_what_is_refused_is_drawn_again_until_it_is_not() -> None:
    drawn = iter(range(100))

    def draw(count: int) -> Bytes8:
        return np.array([next(drawn) for _ in range(count)], np.uint8).reshape(count, 1, 1, 1)

    def ask(images: Bytes8) -> list[Answer]:
        sizes.append(len(images))
        return [Answer(is_refused=bool(image[0, 0, 0] % 2)) for image in images]

    sizes: list[int] = []
    found, answers = toy.result(redrawn(draw, 4, tries=3), ask)
    assert sizes == [4, 2, 1]
    assert found[:, 0, 0, 0].tolist() == [0, 4, 2, 6]
    assert not any(answer.is_refused for answer in answers)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("blind", list(BLINDS))
def test_a_blind_changes_an_image_a_little(blind: str, channels: int) -> None:
    generator = np.random.default_rng(0)
    ramp = np.linspace(60, 160, toy.SIDE)
    image = rounded(np.broadcast_to(ramp[:, None, None] + ramp[None, :, None] / 4, (toy.SIDE, toy.SIDE, channels)))
    changed = [BLINDS[blind](image, generator) for _ in range(8)]
    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in changed)
    assert len({one.tobytes() for one in changed}) > 4
    assert max(linf(np.stack(changed), image)) <= 40


@pytest.mark.parametrize("blind", list(BLINDS))
def test_what_a_blinded_query_wins_is_asked_about_as_it_is(blind: str) -> None:
    first = toy.found(Blinded(attack=ATTACKS["square"], blind=blind), toy.goal(), toy.oracle, QUERIES)
    assert first is not None


def test_a_careful_attacker_sends_more_harmless_queries_after_each_flag() -> None:
    """Of a server that flags whoever does not send three harmless ones before each other query."""

    def dull(image: Bytes8, kept: Sequence[Bytes8]) -> bool:
        def is_harmless(one: Bytes8) -> bool:
            return int(linf(one[None], toy.goal().image)[0]) <= 2

        return not is_harmless(image) and not all(is_harmless(one) for one in kept[-3:])

    plain, careful = toy.Watched(dull), toy.Watched(dull)
    toy.found(ATTACKS["square"], toy.goal(eps=7), plain, 300)
    toy.found(Careful(attack=ATTACKS["square"]), toy.goal(eps=7), careful, 300)
    assert np.mean(plain.refused[3:]) > 0.9
    assert np.mean(careful.refused) < 0.15
