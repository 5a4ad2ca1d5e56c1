"""Checks that an evaluation makes of itself: where one fails, nothing is established by what the attacks did not break.

The signs of gradient masking among them, and their sources, are in `masking`.
"""

from collections.abc import Sequence

from torch import nn

from service.detection.engine import Engine
from training.evaluation.decisions import FUSED, decide
from training.evaluation.judging import Subject
from training.evaluation.masking import (
    any_change_check,
    gradients_check,
    growing_checks,
    not_more_check,
    share_without_gradient,
    without_bound,
)
from training.evaluation.records import Check, SweepPoint
from training.evaluation.results import AttackResult

__all__ = ["judge_sanity"]


def judge_sanity(
    engine: Engine,
    model: nn.Module,
    subject: Subject,
    attacks: Sequence[AttackResult],
    sweep: Sequence[SweepPoint],
    *,
    seed: int,
) -> tuple[Check, ...]:
    """Every check that these records allow.

    Args:
        engine: the bundle.
        model: that gradients came from, in eval mode.
        subject: the attacked images before the attacks.
        attacks: their figures.
        sweep: rising sizes.
        seed: of the attack that one of them makes.
    """
    return (
        _repeats(engine, subject),
        _gradients(model, subject),
        _anything_allowed(engine, model, subject, seed),
        *_growing(sweep),
        *_with_gradients(attacks),
    )


def _repeats(engine: Engine, subject: Subject) -> Check:
    again = decide(engine, subject.images)
    changed = int((again.scores[FUSED] != subject.clean.scores[FUSED]).sum())
    changed += int((again.labels != subject.clean.labels).sum())
    return Check(
        name="The same image gets the same answer",
        passed=changed == 0,
        words=f"{changed} answers of {len(again.labels)} changed when asked again, expected none",
    )


def _gradients(model: nn.Module, subject: Subject) -> Check:
    return gradients_check(share_without_gradient(model, subject.images, subject.truth))


def _anything_allowed(engine: Engine, model: nn.Module, subject: Subject, seed: int) -> Check:
    made = without_bound(model, subject.images, subject.truth, seed)
    wrong = float((decide(engine, made).labels != subject.truth[: len(made)]).mean())
    return any_change_check(wrong, len(made))


def _growing(sweep: Sequence[SweepPoint]) -> list[Check]:
    """Of one attack alone, made anew at each size: the worst case over all of them cannot but fall."""
    return growing_checks([(point.share, point.alone) for point in sweep], "margin PGD")


def _with_gradients(attacks: Sequence[AttackResult]) -> list[Check]:
    """Random search and the walk along the boundary see less, so they must not break more."""
    checks = []
    for norm in ("linf", "l2"):
        alike = [
            one for one in attacks if one.norm == norm and one.eps is not None and not one.is_adaptive and one.images
        ]
        blind = [one for one in alike if one.name.startswith("square")]
        sighted = [one for one in alike if one not in blind and one.eps == blind[0].eps] if blind else []
        if not sighted:
            continue
        best = min(sighted, key=lambda one: 1.0 if one.accuracy.value is None else one.accuracy.value)
        checks.append(
            not_more_check(
                f"Gradients break no fewer images than random search, {'L∞' if norm == 'linf' else 'L2'}",
                (best.title, best.accuracy),
                (blind[0].title, blind[0].accuracy),
            )
        )
    return checks
