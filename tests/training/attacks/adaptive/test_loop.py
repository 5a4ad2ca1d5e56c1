import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.errors import SetupError
from tests.training.attacks.adaptive.toys import Digits, generator, two_logits
from training.attacks.adaptive import (
    AdaptiveAttack,
    AdaptivePgd,
    Deep,
    GraphTarget,
    HighConfidence,
    Lagrangian,
    LagrangianSweep,
    Loop,
    Matching,
    Orthogonal,
    Rule,
    Selective,
    Traced,
    aim_at,
    clean_deviations,
)
from training.attacks.adaptive.look import Look
from training.attacks.threat import named_norm

LINF = Loop(eps=0.15, steps=6, step=0.03, restarts=2)
L2 = Loop(norm="l2", eps=0.9, steps=6, step=0.2, restarts=2)


def matching(loop: Loop) -> Callable[[Digits, Tensor], AdaptiveAttack]:
    def make(digits: Digits, order: Tensor) -> AdaptiveAttack:
        exemplars = digits.images.roll(1, 0)[:, None][order]

        def embedding(images: Tensor) -> Tensor:
            return digits.target.graph.score(images)[1]

        deviations = clean_deviations(embedding, digits.images)
        return Matching(loop=loop, descriptor=embedding, deviations=deviations, exemplars=exemplars)

    return make


def plain(attack: AdaptiveAttack) -> Callable[[Digits, Tensor], AdaptiveAttack]:
    return lambda digits, order: attack


EVERY: dict[str, tuple[Loop, Callable[[Digits, Tensor], AdaptiveAttack]]] = {
    "selective linf": (LINF, plain(AdaptivePgd(loop=LINF, rule=Selective()))),
    "selective l2": (L2, plain(AdaptivePgd(loop=L2, rule=Selective()))),
    "orthogonal": (LINF, plain(AdaptivePgd(loop=LINF, rule=Orthogonal()))),
    "deep": (L2, plain(AdaptivePgd(loop=L2, rule=Deep()))),
    "lagrangian": (LINF, plain(AdaptivePgd(loop=LINF, rule=Lagrangian(weight=0.3)))),
    "sweep": (L2, plain(LagrangianSweep(loop=replace(L2, steps=3), weights=(0.3, 3.0), bisections=1))),
    "high confidence": (LINF, plain(HighConfidence(loop=replace(LINF, steps=2)))),
    "matching": (LINF, matching(LINF)),
}
ATTACKS = pytest.mark.parametrize(("loop", "make"), EVERY.values(), ids=EVERY.keys())
IN_ORDER = torch.arange(12)


def attacked(
    attack: AdaptiveAttack, digits: Digits, order: Tensor = IN_ORDER, targets: Tensor | None = None, seed: int = 0
) -> Any:
    images, labels = digits.images[order], digits.labels[order]
    return attack(digits.target, images, labels, generator(seed), targets=targets)


@ATTACKS
def test_ball_and_box_hold_after_rounding(digits: Digits, loop: Loop, make: Any) -> None:
    found = attacked(make(digits, IN_ORDER), digits)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert named_norm(loop.norm).size(found.images - digits.images).max() <= loop.eps + 1e-6
    levels = found.images * 255
    assert (levels - levels.round()).abs().max() < 1e-3
    assert (found.images != digits.images).any()


@ATTACKS
def test_the_saved_image_scores_again_what_was_saved(digits: Digits, loop: Loop, make: Any) -> None:
    found = attacked(make(digits, IN_ORDER), digits)
    with torch.no_grad():
        logits, suspicion = digits.target(found.images)
    assert torch.allclose(suspicion, found.scores, rtol=1e-4, atol=1e-4)
    assert torch.allclose(aim_at(digits.labels)(logits), found.margins, atol=1e-4)
    assert torch.equal(found.found, found.margins < 0)
    assert found.found.any()
    best = torch.where(found.found, found.scores, torch.inf)
    assert torch.equal(found.best_scores(), best)


@pytest.mark.parametrize("name", EVERY)
def test_a_permuted_batch_gives_permuted_results(digits: Digits, name: str) -> None:
    _, make = EVERY[name]
    order = torch.randperm(12, generator=generator(4))
    images, labels = digits.images.double(), digits.labels  # so that no rounding tells the orders apart
    target = digits.target.double()
    try:
        results = []
        for rows in (IN_ORDER, order):
            attack: Any = make(replace(digits, images=images), rows)
            attack = replace(attack, loop=replace(attack.loop, restarts=1))  # random starts are drawn by place
            results.append(attack(target, images[rows], labels[rows], generator()))
    finally:
        digits.target.graph.float()
    straight, turned = results
    assert torch.equal(turned.found, straight.found[order])
    assert torch.allclose(turned.images, straight.images[order], atol=1e-9)
    assert torch.allclose(turned.scores, straight.scores[order])


@ATTACKS
def test_an_image_does_not_depend_on_the_others(digits: Digits, loop: Loop, make: Any) -> None:
    together = attacked(make(digits, IN_ORDER), digits)
    images, labels = digits.images.clone(), digits.labels.clone()
    images[1::2] = 0.0  # other images, whose gradients may vanish
    labels[1::2] = (labels[1::2] + 1) % 10
    among_others = make(digits, IN_ORDER)(digits.target, images, labels, generator())
    assert torch.equal(together.found[::2], among_others.found[::2])
    assert (together.scores - among_others.scores)[::2].abs().max() < 1e-2 * together.scores.abs().max()


@ATTACKS
def test_the_generator_decides(digits: Digits, loop: Loop, make: Any) -> None:
    first, again = (attacked(make(digits, IN_ORDER), digits, seed=3) for _ in range(2))
    assert torch.equal(first.images, again.images)


@ATTACKS
def test_the_target_is_left_as_found(digits: Digits, loop: Loop, make: Any) -> None:
    target = digits.target
    before = {name: value.clone() for name, value in target.state_dict().items()}
    state = torch.random.get_rng_state()
    images, attack = digits.images.clone(), make(digits, IN_ORDER)
    target.graph.train()
    target.graph.detectors[0].eval()
    modes = [module.training for module in target.modules()]
    try:
        attacked(attack, digits)
        assert [module.training for module in target.modules()] == modes
    finally:
        target.eval()
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in target.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(digits.images, images)


@ATTACKS
def test_targets_are_reached_and_class_0_is_one(digits: Digits, loop: Loop, make: Any) -> None:
    rows = torch.nonzero(digits.labels != 0)[:, 0]
    targets = torch.zeros(len(rows), dtype=torch.long)
    found = make(digits, rows)(digits.target, digits.images[rows], digits.labels[rows], generator(), targets=targets)
    with torch.no_grad():
        labels = digits.target(found.images)[0].argmax(dim=1)
    assert torch.equal(found.found, labels == 0)


def test_adaptive_attacks_find_less_suspicious_images_than_one_that_ignores_the_detectors(digits: Digits) -> None:
    longer = replace(LINF, eps=0.3, steps=30, step=0.02)
    ignorant, *adaptive = (
        attacked(AdaptivePgd(loop=longer, rule=rule), digits)
        for rule in (Lagrangian(weight=0.0, saturates=False), Selective(), Orthogonal())
    )
    both = ignorant.found & adaptive[0].found & adaptive[1].found
    assert both.sum() > 6
    for found in adaptive:
        assert found.scores[both].median() < ignorant.scores[both].median()


def test_a_guide_leads_and_the_target_judges(digits: Digits) -> None:
    guide = GraphTarget(digits.target.graph, digits.calibration, 0)
    guided = attacked(AdaptivePgd(loop=LINF, rule=Selective(), guide=guide), digits)
    with torch.no_grad():
        _, suspicion = digits.target(guided.images)
    assert torch.allclose(suspicion, guided.scores, rtol=1e-4, atol=1e-4)
    assert not torch.equal(guided.images, attacked(AdaptivePgd(loop=LINF, rule=Selective()), digits).images)


def test_more_steps_and_restarts_never_find_less(digits: Digits) -> None:
    found: Traced = attacked(AdaptivePgd(loop=LINF, rule=Selective()), digits)
    points = [found.best_scores(steps=steps) for steps in (0, 2, 6)] + [found.best_scores()]
    for fewer, more in itertools.pairwise(points):
        assert (more <= fewer).all()
    with torch.no_grad():
        logits, suspicion = digits.target(digits.images)
    wrong = logits.argmax(dim=1) != digits.labels
    clean = torch.where(wrong, suspicion, torch.inf)
    assert torch.allclose(found.best_scores(steps=0, restarts=1), clean, rtol=1e-4)


class Flat(nn.Module):
    """Neither margin nor suspicion has a slope."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        nothing = 0 * images.flatten(1).sum(dim=1)
        return two_logits(nothing + 1), nothing


@pytest.mark.parametrize("rule", [Selective(), Orthogonal(), Lagrangian(weight=1.0), Deep()])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_any_slope_the_direction_is_random(rule: Rule, norm: Any) -> None:
    images = torch.full((3, 1, 4, 4), 0.5, dtype=torch.float64)
    places: list[Tensor] = []

    class Watched:
        def uphill(self, look: Look) -> Tensor:
            places.append(look.images.detach())
            return rule.uphill(look)

    loop = Loop(norm=norm, eps=0.2, steps=4, rounds=False)
    AdaptivePgd(loop=loop, rule=Watched())(Flat(), images, torch.zeros(3, dtype=torch.long), generator())
    assert torch.isfinite(torch.stack(places)).all()
    assert (places[-1] != images).any()


def test_a_suspicion_that_is_not_finite_is_never_success() -> None:
    def lost(images: Tensor) -> tuple[Tensor, Tensor]:
        flat = images.flatten(1)
        return two_logits(-1 + 0 * flat[:, 0]), flat[:, 0] * float("nan")

    images = torch.full((2, 1, 2, 2), 0.4)
    found = AdaptivePgd(loop=Loop(eps=0.1, steps=2), rule=Selective())(
        lost, images, torch.zeros(2, dtype=torch.long), generator()
    )
    assert not found.found.any()
    assert found.scores.tolist() == [float("inf")] * 2
    assert not found.accepted_and_wrong(float("inf")).any()
    assert found.best_scores().tolist() == [float("inf")] * 2


def test_rounding_looks_at_whole_levels_only(digits: Digits) -> None:
    seen = []

    def watched(images: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(images.detach() * 255)
        answer: tuple[Tensor, Tensor] = digits.target(images)
        return answer

    AdaptivePgd(loop=LINF, rule=Selective())(watched, digits.images, digits.labels, generator())
    assert len(seen) == 2 * 7
    assert all((levels - levels.round()).abs().max() < 1e-3 for levels in seen)


def test_images_that_are_not_of_8_bits_are_refused_where_the_loop_rounds(digits: Digits) -> None:
    halves = digits.images * 0 + 0.5
    with pytest.raises(SetupError, match=r"images: expected whole multiples of 1/255, got one 0.5 of a level off; rou"):
        AdaptivePgd(loop=LINF, rule=Selective())(digits.target, halves, digits.labels, generator())
    found = AdaptivePgd(loop=replace(LINF, rounds=False), rule=Selective())(
        digits.target, halves, digits.labels, generator()
    )
    assert (found.images - halves).abs().max() <= 0.15 + 1e-6


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"eps": 0.0}, ValueError, "adaptive: expected eps above 0, got 0"),
        ({"eps": float("nan")}, ValueError, "adaptive: expected eps above 0, got nan"),
        ({"step": -1.0}, ValueError, "adaptive: expected a step of at least 0, got -1"),
        ({"norm": "l1"}, SetupError, "norm: expected one of linf, l2, got 'l1'"),
        ({"steps": 0}, SetupError, "steps: expected a number of at least 1, got 0"),
        ({"restarts": 0}, SetupError, "restarts: expected a number of at least 1, got 0"),
        ({"kappa": -0.1}, SetupError, "kappa: expected a number of at least 0, got -0.1"),
        ({"kappa": float("nan")}, SetupError, "kappa: expected a number of at least 0, got nan"),
        ({"eps": 0.003}, SetupError, "eps: expected at least 1/255 for 8-bit images, got 0.003; raise it or set round"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Loop(**{"eps": 0.1, **changes})
