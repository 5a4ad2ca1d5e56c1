"""Every rule against two targets for which the answers are known, and where no rule wins on both."""

import pytest
import torch
from torch import Tensor

from tests.training.attacks.adaptive.toys import Slopes, TwoDiscs, exact, generator
from training.attacks.adaptive import (
    WEIGHTS,
    AdaptivePgd,
    Lagrangian,
    LagrangianSweep,
    Orthogonal,
    Rule,
    Selective,
    Traced,
)
from training.attacks.adaptive.look import Look

HALF = 64
"""Images whose success exists, and as many whose does not."""


class TurnedSelective:
    """Selective PGD with the wrong sign of the suspicion."""

    def uphill(self, look: Look) -> Tensor:
        return look.gradient(torch.where(look.crossed, -look.guide, look.margins.double()))


@pytest.fixture(scope="module")
def slopes() -> Slopes:
    tau, b = (torch.tensor(pair, dtype=torch.float64).repeat_interleave(HALF) for pair in ((0.02, 0.1), (0.55, 0.7)))
    return Slopes(rho=0.8, tau=tau, b=b)


@pytest.fixture(scope="module")
def discs() -> TwoDiscs:
    return TwoDiscs()


def attacked(rule: Rule, toy: Slopes | TwoDiscs, copies: int = 1) -> Traced:
    images = toy.images.repeat(copies, 1, 1, 1)
    labels = torch.zeros(len(images), dtype=torch.long)
    return AdaptivePgd(loop=exact(toy), rule=rule)(toy, images, labels, generator())


def share(won: Tensor) -> float:
    return float(won.double().mean())


RULES = pytest.mark.parametrize(
    ("rule", "on_slopes", "on_discs"),
    [
        (Selective(), 1.0, 1.0),
        (Orthogonal(), 1.0, 0.0),
        (Orthogonal(projects="classifier"), 1.0, 0.63),
        (Orthogonal(projects="detector"), 1.0, 0.0),
        (TurnedSelective(), 0.0, 0.0),
    ],
    ids=["selective", "orthogonal", "classifier's only", "detector's only", "turned"],
)


def test_a_success_exists_for_one_half_only(slopes: Slopes) -> None:
    assert slopes.limit[[0, -1]].tolist() == pytest.approx([0.616, 0.677], abs=5e-4)
    assert (slopes.b < slopes.limit).tolist() == [True] * HALF + [False] * HALF


@RULES
def test_rules_on_slopes(slopes: Slopes, rule: Rule, on_slopes: float, on_discs: float) -> None:
    won = attacked(rule, slopes).accepted_and_wrong(0.0)
    assert share(won[:HALF]) == on_slopes
    assert share(won[HALF:]) == 0


@RULES
def test_rules_on_two_discs(discs: TwoDiscs, rule: Rule, on_slopes: float, on_discs: float) -> None:
    # 0.63 is a share of 200 drawn starts: three standard errors are 0.10.
    tolerance = 0.1 if 0 < on_discs < 1 else 0.0
    assert share(attacked(rule, discs).accepted_and_wrong(0.0)) == pytest.approx(on_discs, abs=tolerance)


def over_weights(toy: Slopes | TwoDiscs, weights: tuple[float, ...], *, saturates: bool) -> Tensor:
    """(weights, N) success of a Lagrangian with each of several weights, in one batch."""
    each = torch.tensor(weights, dtype=torch.float64).repeat_interleave(len(toy.images))
    found = attacked(Lagrangian(weight=each, saturates=saturates), toy, copies=len(weights))
    return found.accepted_and_wrong(0.0).view(len(weights), -1)


MARGIN_ONLY, SUSPICION_ONLY = 0.0, 1e12


def test_one_of_the_two_alone_or_a_fixed_weight_on_slopes(slopes: Slopes) -> None:
    won = over_weights(slopes, (MARGIN_ONLY, SUSPICION_ONLY, *WEIGHTS, 0.806), saturates=False)
    assert not won[:-1].any()
    assert won[-1].tolist() == [True] * HALF + [False] * HALF


def test_one_of_the_two_alone_or_a_fixed_weight_on_two_discs(discs: TwoDiscs) -> None:
    assert not over_weights(discs, (MARGIN_ONLY, SUSPICION_ONLY, *WEIGHTS), saturates=False).any()


def test_a_saturated_margin_on_two_discs(discs: TwoDiscs) -> None:
    won = over_weights(discs, WEIGHTS, saturates=True)
    assert won.all(dim=1).tolist() == [weight <= 10 for weight in WEIGHTS]


@pytest.mark.parametrize(("bisections", "expected"), [(6, 0.0), (7, 1.0)])
def test_bisection_finds_the_weight_that_a_grid_misses(slopes: Slopes, bisections: int, expected: float) -> None:
    # Halving [0.01, 100] in the logarithm gives 1, 0.1, 0.316, 0.562, 0.75, 0.866, 0.806.
    sweep = LagrangianSweep(
        loop=exact(slopes, steps=100), weights=(0.01, 100.0), bisections=bisections, saturates=False
    )
    found = sweep(slopes, slopes.images, torch.zeros(2 * HALF, dtype=torch.long), generator())
    won = found.accepted_and_wrong(0.0)
    assert share(won[:HALF]) == expected
    assert share(won[HALF:]) == 0
