"""The attacks of an evaluation: which, how strong, and what a reader needs to know of each.

None of these sees the detectors, so what they give are non-adaptive figures and must be called so; those that do are in
`training.evaluation.adaptive_suite`. Attacks by way of another network are in `training.evaluation.transfer`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from service.errors import SetupError
from training.attacks.library import CarliniWagnerL2
from training.evaluation.blind_strength import FULL, QUICK, STANDARD, BlindStrength
from training.evaluation.bounded_suite import bounded_suite
from training.evaluation.entries import AttackNorm, Budgets, NormName, SuiteEntry, budgets_for
from training.evaluation.nearest_suite import nearest_suite
from training.evaluation.unseen_suite import unseen_suite

__all__ = [
    "SHORT",
    "AttackNorm",
    "Budgets",
    "Fitting",
    "NormName",
    "SuiteEntry",
    "blind_suite",
    "budgets_for",
    "chosen",
    "fitting",
    "full_suite",
    "quick_suite",
    "short_suite",
    "standard_suite",
]

SHORT = dataclasses.replace(QUICK, steps=20, carlini_steps=100, bisections=4, carlini_images=None)
"""How strong the attacks of `short_suite` are."""


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """The attacks of a suite that a model allows."""

    entries: tuple[SuiteEntry, ...]
    remarks: tuple[str, ...]
    """One sentence for each attack that was left out."""


def blind_suite(budgets: Budgets, strength: BlindStrength) -> tuple[SuiteEntry, ...]:
    """Every attack that sees the classifier alone."""
    return (*bounded_suite(budgets, strength), *nearest_suite(strength), *unseen_suite(strength))


def full_suite(budgets: Budgets) -> tuple[SuiteEntry, ...]:
    """At full strength."""
    return blind_suite(budgets, FULL)


def standard_suite(budgets: Budgets) -> tuple[SuiteEntry, ...]:
    """Strong enough for figures that may be published."""
    return blind_suite(budgets, STANDARD)


def quick_suite(budgets: Budgets) -> tuple[SuiteEntry, ...]:
    """Far too weak to be published: for tests and for a first look."""
    return blind_suite(budgets, QUICK)


def short_suite(budgets: Budgets) -> tuple[SuiteEntry, ...]:
    """Four of the same, of one start and few steps: to choose by, on images that no figure is about."""
    return chosen(blind_suite(budgets, SHORT), ("pgd", "margin_pgd", "pgd_l2", "cw_l2"))


def fitting(suite: Sequence[SuiteEntry], names: Sequence[str], *, classes: int, widest: float) -> Fitting:
    """The chosen entries without those that could only fail on a model.

    Args:
        suite: what there is.
        names: as for `chosen`.
        classes: of the model.
        widest: the largest lead of a logit over all others that the model gives on a clean image; Carlini and Wagner's
            attack with a larger confidence asks for what the model hardly ever does.

    Raises:
        SetupError: as for `chosen`, or none of the named ones is left.
    """
    entries, remarks = [], []
    for entry in chosen(suite, names):
        if reason := _unfit(entry, classes, widest):
            remarks.append(f"{entry.title} was left out: {reason}.")
        else:
            entries.append(entry)
    if not entries:
        raise SetupError(f"--attacks: expected one that fits the model; {' '.join(remarks)}")
    return Fitting(entries=tuple(entries), remarks=tuple(remarks))


def _unfit(entry: SuiteEntry, classes: int, widest: float) -> str:
    if classes < entry.least_classes:
        return f"it needs {entry.least_classes} classes, the model has {classes}"
    if isinstance(entry.attack, CarliniWagnerL2) and entry.attack.confidence > max(widest, 0.0):
        return f"no clean image has a logit that leads by more than {widest:.3g}"
    return ""


def chosen(suite: Sequence[SuiteEntry], names: Sequence[str]) -> tuple[SuiteEntry, ...]:
    """The entries of these names in the suite's order; all of them for no names.

    Raises:
        SetupError: a name that the suite does not have.
    """
    known = [entry.name for entry in suite]
    for name in names:
        if name not in known:
            raise SetupError(f"--attacks: expected some of {', '.join(known)}, got {name!r}")
    return tuple(entry for entry in suite if not names or entry.name in names)
