"""The worst case over several norms, each with a budget of its own: the attacks, and the figures."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from service.errors import SetupError
from training.attacks import Apgd, Attack, FirstFooling
from training.attacks.ball import BALL_NORMS, Ball
from training.attacks.ball_pgd import BallPgd
from training.attacks.rounding import levels
from training.evaluation.eight_bit import Settled
from training.evaluation.entries import SuiteEntry
from training.evaluation.robust_figures import Figures, Tried, Untouched
from training.evaluation.strength import Strength

__all__ = ["NAMED", "norm_battery", "over_norms", "parse_balls"]

NAMED = "norms_"
"""How the names of these attacks begin; the norm follows."""

_SPREADS = (0.005, 0.02, 0.1)
"""Shares of the values that a step in l1 moves; none is best for every image."""


def parse_balls(text: str) -> tuple[Ball, ...]:
    """`linf=0.3,l2=2,l1=10` as balls.

    Raises:
        SetupError: another form, an unknown norm, one twice, or a budget that makes no sense.
    """
    balls = []
    for part in text.split(","):
        norm, equals, eps = part.strip().partition("=")
        try:
            balls.append(Ball(norm=norm, eps=float(eps) if equals else float("nan")))  # type: ignore[arg-type]
        except (ValueError, SetupError) as error:
            wanted = "NORM=EPS,NORM=EPS such as linf=0.3,l2=2,l1=10"
            raise SetupError(f"--norms: expected {wanted}, got {part.strip()!r} ({error})") from error
    if len({ball.norm for ball in balls}) < len(balls):
        raise SetupError(f"--norms: expected each norm once, got {text}")
    return tuple(balls)


def norm_battery(balls: Sequence[Ball], strength: Strength) -> tuple[SuiteEntry, ...]:
    """One entry a norm: PGD with exact projections on cross-entropy and margin, then APGD where it has the norm."""
    return tuple(_entry(ball, strength) for ball in sorted(balls, key=lambda ball: BALL_NORMS.index(ball.norm)))


def over_norms(untouched: Untouched, tried: Sequence[Tried]) -> Figures:
    """`worst_over_norms_accuracy`: the share that is right unattacked and in every norm; none without such attacks."""
    several = [one for one in tried if one.entry.name.startswith(NAMED)]
    if not several:
        return {}
    fooled = np.any([one.fools(untouched) for one in several], axis=0)
    return {"worst_over_norms_accuracy": float((untouched.right & ~fooled).mean())}


def _entry(ball: Ball, strength: Strength) -> SuiteEntry:
    eps = levels(ball.eps) / 255 if ball.norm == "linf" else ball.eps
    if eps == 0:
        raise SetupError(f"--norms: expected at least 1/255 for linf, a level of an 8-bit image, got {ball.eps:g}")
    whole = Ball(norm=ball.norm, eps=eps)
    spreads = _SPREADS if ball.norm == "l1" else _SPREADS[:1]
    losses: tuple[Literal["ce", "margin"], ...] = ("ce", "margin")
    attacks: list[Attack] = []
    for _ in range(strength.restarts):
        attacks += [
            BallPgd(ball=whole, steps=strength.steps, loss=loss, spread=spread) for spread in spreads for loss in losses
        ]
    if ball.norm == "linf" or ball.norm == "l2":
        attacks.append(Apgd(norm=ball.norm, eps=eps, steps=strength.steps))
    return SuiteEntry(
        name=f"{NAMED}{ball.norm}",
        title=f"PGD, {ball.norm}",
        description="Several runs of PGD within the budget of this norm, each on what the ones before left.",
        norm=ball.norm,
        eps=eps,
        attack=FirstFooling(attacks=tuple(attacks), settle=Settled(ball.norm, eps)),
    )
