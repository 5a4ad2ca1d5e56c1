"""Checks that an evaluation makes of itself: where one fails, nothing is established by what the attacks did not break.

Source: signs of attacks that were misled, Athalye et al. 2018 (arXiv 1802.00420), Tramèr et al. 2020 (arXiv 2002.08347)
    and the warnings of AutoAttack (Croce and Hein 2020, arXiv 2003.01690).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from service.detection.engine import Engine
from training.attacks import Pgd
from training.attacks.objectives import margin
from training.attacks.protocol import undisturbed
from training.attacks.rounding import from_8_bit, to_8_bit
from training.evaluation.attacking import BATCH
from training.evaluation.bootstrap import Estimate
from training.evaluation.decisions import FUSED, decide
from training.evaluation.judging import Subject
from training.evaluation.records import Check, SweepPoint
from training.evaluation.results import AttackResult

__all__ = ["judge_sanity"]

_WITHOUT_GRADIENT = 0.01
"""Share of images without any that is still believed."""
_NEARLY_ALL = 0.99
_TRIED, _STEPS = 64, 20
"""Images and steps of the attack without a budget."""


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
    device = next(model.parameters()).device
    without = 0
    for start in range(0, len(subject.truth), BATCH):
        images = from_8_bit(subject.images[start : start + BATCH]).to(device).requires_grad_()
        labels = torch.from_numpy(subject.truth[start : start + BATCH]).to(device)
        with undisturbed(model), torch.enable_grad():
            (slopes,) = torch.autograd.grad(margin(model(images), labels).sum(), images)
        without += int((slopes.flatten(1) == 0).all(dim=1).sum())
    share = without / len(subject.truth)
    return Check(
        name="Gradients are there",
        passed=share <= _WITHOUT_GRADIENT,
        words=f"{100 * share:.1f} % of the images have none, expected at most {100 * _WITHOUT_GRADIENT:g} %",
    )


def _anything_allowed(engine: Engine, model: nn.Module, subject: Subject, seed: int) -> Check:
    """PGD that may change every pixel to anything; what it leaves alone has no gradient that leads anywhere."""
    device = next(model.parameters()).device
    clean = from_8_bit(subject.images[:_TRIED]).to(device)
    labels = torch.from_numpy(subject.truth[:_TRIED]).to(device)
    attack = Pgd(eps=1.0, steps=_STEPS, loss="margin")
    made = attack(model, clean, labels, torch.Generator().manual_seed(seed))
    answers = decide(engine, np.ascontiguousarray(to_8_bit(made, clean, "linf", 1.0).cpu().numpy()))
    wrong = float((answers.labels != subject.truth[:_TRIED]).mean())
    return Check(
        name="A change of any size fools",
        passed=wrong >= _NEARLY_ALL,
        words=f"{100 * wrong:.1f} % of {len(clean)} images are misread, expected at least {100 * _NEARLY_ALL:g} %",
    )


def _growing(sweep: Sequence[SweepPoint]) -> list[Check]:
    """Of one attack alone, made anew at each size: the worst case over all of them cannot but fall."""
    if len(sweep) < 2:
        return []
    worse = [f"{after.share:g} budgets" for before, after in pairwise(sweep) if _above(after.alone, before.alone)]
    return [
        Check(
            name="Larger changes break no fewer images",
            passed=not worse,
            words=f"margin PGD leaves more right at {', '.join(worse)} than at the size before"
            if worse
            else "by margin PGD, at every size",
        )
    ]


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
            Check(
                name=f"Gradients break no fewer images than random search, {'L∞' if norm == 'linf' else 'L2'}",
                passed=not _above(best.accuracy, blind[0].accuracy),
                words=f"{best.title} leaves {_percent(best.accuracy)} right, {blind[0].title} "
                f"{_percent(blind[0].accuracy)}",
            )
        )
    return checks


def _above(larger: Estimate, smaller: Estimate) -> bool:
    """Whether it is larger beyond a standard error of the difference of two shares of the same images."""
    if larger.value is None or smaller.value is None:
        return False
    spread = math.sqrt(max(larger.value * (1 - larger.value), smaller.value * (1 - smaller.value)) / larger.n)
    return larger.value - smaller.value > spread


def _percent(share: Estimate) -> str:
    return "none" if share.value is None else f"{100 * share.value:.1f} %"
