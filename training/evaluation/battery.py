"""The attacks by which `robustness` measures a run, in units of its budgets.

All know the classifier and nothing of any detector. The Linf attacks aim at 8-bit images, with whole levels of them.
"""

from service.errors import SetupError
from training.attacks import Fgsm, FirstFooling, Mim, Pgd, aa_like
from training.attacks.rounding import levels
from training.evaluation.eight_bit import Settled
from training.evaluation.strength import Strength
from training.evaluation.suite import Budgets, SuiteEntry

__all__ = ["PGD_AT", "battery"]

PGD_AT = {"100": "pgd_100", "150": "pgd_100_150", "200": "pgd_100_200"}
"""Percent of the Linf budget to the name of the attack that has it."""

LEAST_CLASSES = 4
"""Of a model that `aa_like` can attack."""


def battery(budgets: Budgets, classes: int, strength: Strength) -> tuple[SuiteEntry, ...]:
    """Every attack, weakest first; `aa_like` only for 4 classes or more.

    Raises:
        SetupError: 8-bit images allow no change within the Linf budget.
    """
    if levels(budgets.linf) < 1:
        raise SetupError(f"attack.eps: expected at least 1/255, a level of an 8-bit image, got {budgets.linf:g} (Linf)")
    eps = levels(budgets.linf) / 255
    steps, restarts = strength.steps, strength.restarts
    margin = Pgd(eps=eps, steps=steps, loss="margin")
    l2 = Pgd(norm="l2", eps=budgets.l2, steps=steps)
    entries = [
        SuiteEntry(
            name="fgsm",
            title="FGSM",
            description="One step uphill of the whole budget.",
            norm="linf",
            eps=eps,
            attack=Fgsm(eps=eps),
        ),
        SuiteEntry(
            name="pgd_20",
            title="PGD, few steps",
            description="20 steps of a quarter of the budget from one random start.",
            norm="linf",
            eps=eps,
            attack=Pgd(eps=eps, step=eps / 4, steps=strength.few),
        ),
        *(_pgd(name, budgets.linf * int(percent) / 100, strength) for percent, name in PGD_AT.items()),
        SuiteEntry(
            name="margin_pgd",
            title="PGD on the margin",
            description="As PGD, on the gap between the best wrong logit and the right one.",
            norm="linf",
            eps=eps,
            attack=FirstFooling(attacks=(margin,) * restarts, settle=Settled("linf", eps)),
        ),
        SuiteEntry(
            name="mim",
            title="Momentum",
            description="PGD along the average of all gradients so far, from the clean image.",
            norm="linf",
            eps=eps,
            attack=FirstFooling(
                attacks=(Mim(eps=eps, step=2.5 * eps / steps, steps=steps),), settle=Settled("linf", eps)
            ),
        ),
        SuiteEntry(
            name="aa_like",
            title="APGD-CE, targeted APGD-DLR and Square",
            description="The parts of AutoAttack without FAB, each on what the ones before left.",
            norm="linf",
            eps=eps,
            attack=aa_like("linf", eps, steps=steps, queries=strength.queries, settle=Settled("linf", eps)),
        ),
        SuiteEntry(
            name="pgd_l2",
            title="PGD L2",
            description="PGD that may change few pixels much, as long as the Euclidean length keeps its budget.",
            norm="l2",
            eps=budgets.l2,
            attack=FirstFooling(attacks=(l2,) * restarts, settle=Settled("l2", budgets.l2)),
        ),
    ]
    return tuple(entry for entry in entries if entry.name != "aa_like" or classes >= LEAST_CLASSES)


def _pgd(name: str, budget: float, strength: Strength) -> SuiteEntry:
    """PGD with restarts; its first start attacks every image, because detection is judged on attacked images."""
    eps = levels(budget) / 255
    attack = Pgd(eps=eps, steps=strength.steps)
    return SuiteEntry(
        name=name,
        title="PGD, many steps",
        description="100 steps of a fortieth of the budget from several random starts.",
        norm="linf",
        eps=eps,
        attack=FirstFooling(attacks=(attack,) * strength.restarts, settle=Settled("linf", eps), spares_wrong=False),
    )
