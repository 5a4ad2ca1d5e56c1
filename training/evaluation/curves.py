"""Accuracy at growing budgets of one network, and signs that its gradients mislead attacks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.detection.types import Bytes8
from training.analysis.subjects import Subject
from training.attacks import Attack, Fgsm, FirstFooling, Pgd, Square
from training.attacks.rounding import levels
from training.checkpoint import Run
from training.data.types import ImageSet
from training.evaluation.attack_cache import ATTACKED, AttackCache
from training.evaluation.attacking import AttackRun, Progress, attack_images
from training.evaluation.battery import battery
from training.evaluation.bootstrap import Estimate
from training.evaluation.eight_bit import EightBit, Settled
from training.evaluation.entries import SuiteEntry
from training.evaluation.judging import inside
from training.evaluation.masking import (
    any_change_check,
    gradients_check,
    growing_checks,
    not_more_check,
    share_without_gradient,
    without_bound,
)
from training.evaluation.pursuit_figures import pursuit_figures
from training.evaluation.records import Check
from training.evaluation.strength import Strength
from training.evaluation.suite import Budgets, chosen
from training.evaluation.transfer import Transferred
from training.evaluation.views import views_of
from training.models.pursuit import PursuitNet
from training.network_digest import network_digest
from training.processes import ALONE, Processes

__all__ = ["SHARES", "Curves", "measure_curves"]

SHARES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Of the budget."""
SIGHTED = ("pgd_100", "margin_pgd")
"""Attacks of the battery that follow the network's own gradients with all strength."""
TRANSFER = "transfer"
"""How names of attacks by way of other networks begin."""
_BATCH = 250


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What was found of one network."""

    figures: dict[str, float]
    """By name: see docs/robustness.md."""
    checks: tuple[Check, ...]
    """Where one fails, nothing is established by what the attacks did not break."""
    spared: float = 0.0
    """Seconds that earlier calls had spent on its attacks."""


def measure_curves(
    subject: Subject,
    test: ImageSet,
    others: Sequence[Run],
    *,
    eps: float,
    strength: Strength,
    seed: int,
    progress: Progress,
    processes: Processes = ALONE,
) -> Curves:
    """Attacks a run's network by what its gradients say, by random search, and by way of other networks.

    Args:
        subject: the run; attacked images are kept in its directory.
        test: images that are attacked.
        others: runs by whose gradients it is attacked too; those with the run's own weights are left out.
        eps: the Linf budget.
        strength: of the attacks.
        seed: of the attacks.
        progress: takes lines for people.
        processes: that share the attacks; all of them find the same.
    """
    model = subject.run.model
    truth = test.labels.astype(np.int64)
    own = network_digest(model)
    blind = [
        _square(eps, strength),
        *(
            _by_way_of(other, number, eps, strength)
            for number, other in enumerate(others, start=1)
            if network_digest(other.model) != own
        ),
    ]
    right = np.asarray(views_of(model, test.images).labels.numpy() == truth)
    figures = {"clean_accuracy": float(right.mean())}
    cache = AttackCache(subject.run.path / ATTACKED, warn=progress)
    worst, spared = right.copy(), 0.0
    strong = chosen(battery(Budgets(linf=eps, l2=eps), model.head.out_features, strength), SIGHTED)
    for entry in [*_growing(eps, strength), *strong, *blind]:
        made = _attacked(subject, test.images, truth, entry, cache, seed, progress, processes)
        resists = right & np.asarray(views_of(model, made.images).labels.numpy() == truth)
        spared += made.spared
        figures[f"{entry.name}_accuracy"] = float(resists.mean())
        worst &= resists | ~inside(made.images, test.images, "linf", eps)
        progress(f"{subject.name} {entry.name} done: {resists.mean():.1%} stay right")
    figures["worst_accuracy"] = float(worst.mean())
    missing = share_without_gradient(model, test.images, truth)
    freed = without_bound(model, test.images, truth, seed)
    wrong = float((views_of(model, freed).labels.numpy() != truth[: len(freed)]).mean())
    checks = (
        gradients_check(missing),
        any_change_check(wrong, len(freed)),
        *_comparisons(figures, [entry.name for entry in blind], len(truth)),
    )
    by_way = [figures.pop(f"{entry.name}_accuracy") for entry in blind if entry.name.startswith(TRANSFER)]
    if by_way:
        figures["transfer_accuracy"] = min(by_way)
    figures["masking_signs"] = float(sum(not check.passed for check in checks))
    if isinstance(model, PursuitNet):
        figures |= pursuit_figures(model, test.images)
    return Curves(figures=figures, checks=checks, spared=spared)


def _comparisons(figures: dict[str, float], blind: Sequence[str], images: int) -> list[Check]:
    """Checks that hold figures against each other."""

    def _estimate(name: str) -> Estimate:
        return Estimate(value=figures[f"{name}_accuracy"], interval=None, n=images)

    sighted = min(SIGHTED, key=lambda name: figures[f"{name}_accuracy"])
    return [
        *growing_checks([(share, _estimate(f"pgd_at_{share:g}")) for share in SHARES], "PGD"),
        *(
            not_more_check(
                f"Its gradients break no fewer images than {name}",
                (sighted, _estimate(sighted)),
                (name, _estimate(name)),
            )
            for name in blind
        ),
    ]


def _attacked(
    subject: Subject,
    images: Bytes8,
    truth: np.ndarray,
    entry: SuiteEntry,
    cache: AttackCache,
    seed: int,
    progress: Progress,
    processes: Processes,
) -> AttackRun:
    return attack_images(
        EightBit(subject.run.model),
        images,
        truth,
        entry,
        seed=seed,
        progress=progress,
        batch=_BATCH,
        cache=cache,
        processes=processes,
    )


def _growing(eps: float, strength: Strength) -> list[SuiteEntry]:
    """FGSM and PGD at each share of the budget that 8-bit images allow."""
    entries = []
    for share in SHARES:
        budget = levels(share * eps) / 255
        entries += [
            _entry(f"fgsm_at_{share:g}", budget, Fgsm(eps=budget)),
            _entry(f"pgd_at_{share:g}", budget, Pgd(eps=budget, steps=strength.few)),
        ]
    return entries


def _square(eps: float, strength: Strength) -> SuiteEntry:
    budget = levels(eps) / 255
    attack = FirstFooling(
        attacks=(Square(norm="linf", eps=budget, queries=strength.queries),), settle=Settled("linf", budget)
    )
    return _entry("square", budget, attack)


def _by_way_of(other: Run, number: int, eps: float, strength: Strength) -> SuiteEntry:
    budget = levels(eps) / 255
    words = f"weights {network_digest(other.model)}"
    attack = Transferred(attack=Pgd(eps=budget, steps=strength.steps), model=other.model, words=words)
    return _entry(f"{TRANSFER}{number}", budget, attack)


def _entry(name: str, eps: float, attack: Attack) -> SuiteEntry:
    return SuiteEntry(name=name, title=name, description="", norm="linf", eps=eps, attack=attack)
