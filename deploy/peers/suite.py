"""The attacks by which the detectors are held against each other."""

import dataclasses

from deploy.peers.contestants import Contestant
from service.errors import SetupError
from training.attacks.adaptive import AdaptivePgd, Loop, Selective
from training.evaluation.adaptive_suite import QUICK, STANDARD
from training.evaluation.aimed import Aimed
from training.evaluation.suite import Budgets, NormName, SuiteEntry, quick_suite, standard_suite

__all__ = ["NAMES", "aimed_at", "blind_suite", "fitting_attack"]

NAMES = ("fgsm", "pgd", "pgd_l2", "cw_l2", "deepfool", "square")
"""The attacks that know the classifier alone."""


def blind_suite(budgets: Budgets, *, quick: bool) -> tuple[SuiteEntry, ...]:
    """Those attacks as `evaluate` runs them, each on all images."""
    entries = {entry.name: entry for entry in (quick_suite if quick else standard_suite)(budgets)}
    return tuple(dataclasses.replace(entries[name], images=None) for name in NAMES)


def fitting_attack(suite: tuple[SuiteEntry, ...], norm: NormName) -> SuiteEntry:
    """The PGD of the suite that makes the attacked images to learn from, in the norm of the threat model."""
    name = "pgd" if norm == "linf" else "pgd_l2"
    return next(entry for entry in suite if entry.name == name)


def aimed_at(contestant: Contestant, budgets: Budgets, norm: NormName, *, quick: bool) -> SuiteEntry:
    """Selective PGD on this detector, at the training budget.

    Raises:
        SetupError: it has no gradient.
    """
    if contestant.target is None:
        raise SetupError(f"{contestant.name}: expected a detector with a gradient, got one without")
    strength = QUICK if quick else STANDARD
    loop = Loop(norm=norm, eps=budgets.of(norm), steps=strength.steps, restarts=strength.restarts)
    return SuiteEntry(
        name=f"selective_{contestant.name}",
        title=f"Selective PGD on {contestant.title}",
        description="Makes the label wrong, then lowers this detector's score; goes back when the label turns right.",
        norm=norm,
        eps=budgets.of(norm),
        attack=Aimed(
            attack=AdaptivePgd(loop=loop, rule=Selective()),
            target=contestant.target,
            words=f"Selective({loop}) at {contestant.identity}",
        ),
        is_adaptive=True,
    )
