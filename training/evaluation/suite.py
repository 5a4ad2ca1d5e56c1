"""The attacks of an evaluation: which, how strong, and what a reader needs to know of each.

None of these sees the detectors, so what they give are non-adaptive figures and must be called so; those that do are in
`training.evaluation.adaptive_suite`. Decision-based and transferred attacks are not among them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.errors import SetupError
from training.attacks import Attack, Fgsm, Pgd
from training.attacks.library import DDN, FMN, CarliniWagnerL2, DeepFool

__all__ = ["SHORT", "Budgets", "SuiteEntry", "budgets_for", "chosen", "full_suite", "quick_suite", "short_suite"]

NormName = Literal["linf", "l2"]

SHORT = {"steps": 20, "restarts": 1, "search_steps": 100, "bisections": 4}
"""How strong the attacks of `short_suite` are."""


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """The largest change that the threat model allows, in units of the [0, 1] image."""

    linf: float
    l2: float

    def of(self, norm: str) -> float:
        """The budget in this norm."""
        return {"linf": self.linf, "l2": self.l2}[norm]


@dataclass(frozen=True, kw_only=True)
class SuiteEntry:
    """One attack and how it is spoken of."""

    name: str
    title: str
    description: str
    """One sentence for a reader who knows nothing of attacks."""
    norm: NormName
    """In which the attack is measured."""
    eps: float | None
    """None: it looks for the smallest change that fools."""
    attack: Attack
    is_adaptive: bool = False
    """Whether it knows the detectors and the calibration."""


def budgets_for(norm: str, eps: float, values: int, *, l2_eps: float | None = None) -> Budgets:
    """The budgets of both norms, from the one that the bundle was trained for.

    Unless given, the L2 budget is that of a change by the Linf budget on one value in sixteen, eps sqrt(values) / 4:
    2.1 for MNIST at 0.3 and 0.43 for 32 x 32 colour images at 8/255, near the customary 2.0 and 0.5.

    Args:
        norm: of the training, linf or l2.
        eps: in that norm.
        values: height x width x channels of an image.
        l2_eps: replaces the rule.
    """
    ratio = math.sqrt(values) / 4
    if norm == "l2":
        return Budgets(linf=eps / ratio, l2=l2_eps or eps)
    return Budgets(linf=eps, l2=l2_eps or eps * ratio)


def full_suite(budgets: Budgets) -> tuple[SuiteEntry, ...]:
    """The attacks whose figures may be published."""
    return _suite(budgets, steps=100, restarts=5, search_steps=200, bisections=6)


def quick_suite(budgets: Budgets) -> tuple[SuiteEntry, ...]:
    """The same, far too weak to be published: for tests and for a first look."""
    return _suite(budgets, steps=10, restarts=1, search_steps=30, bisections=3)


def short_suite(budgets: Budgets) -> tuple[SuiteEntry, ...]:
    """Four of the same, of one start and few steps: to choose by, on images that no figure is about."""
    return chosen(_suite(budgets, **SHORT), ("pgd", "margin_pgd", "pgd_l2", "cw_l2"))


def _suite(
    budgets: Budgets, *, steps: int, restarts: int, search_steps: int, bisections: int
) -> tuple[SuiteEntry, ...]:
    linf, l2 = budgets.linf, budgets.l2
    carlini = CarliniWagnerL2(steps=search_steps, bisections=bisections, initial_constant=0.1)
    return (
        SuiteEntry(
            name="fgsm",
            title="FGSM",
            description="One step uphill: every pixel value moves by the whole budget at once.",
            norm="linf",
            eps=linf,
            attack=Fgsm(norm="linf", eps=linf),
        ),
        SuiteEntry(
            name="pgd",
            title="PGD",
            description="Many small steps uphill inside the budget, from several random starts.",
            norm="linf",
            eps=linf,
            attack=Pgd(norm="linf", eps=linf, steps=steps, restarts=restarts),
        ),
        SuiteEntry(
            name="margin_pgd",
            title="Margin PGD",
            description="As PGD, but it lowers the right class's lead over the strongest wrong one.",
            norm="linf",
            eps=linf,
            attack=Pgd(norm="linf", eps=linf, steps=steps, restarts=restarts, loss="margin"),
        ),
        SuiteEntry(
            name="pgd_150",
            title="PGD at 1.5 budgets",
            description="PGD with half as much again as the classifier was trained for.",
            norm="linf",
            eps=1.5 * linf,
            attack=Pgd(norm="linf", eps=1.5 * linf, steps=steps, restarts=restarts),
        ),
        SuiteEntry(
            name="pgd_l2",
            title="PGD L2",
            description="PGD that may change few pixels much, as long as the Euclidean length keeps its budget.",
            norm="l2",
            eps=l2,
            attack=Pgd(norm="l2", eps=l2, steps=steps, restarts=restarts),
        ),
        SuiteEntry(
            name="deepfool",
            title="DeepFool",
            description="Walks to the nearest class boundary and stops right behind it.",
            norm="l2",
            eps=None,
            attack=DeepFool(norm="l2"),
        ),
        SuiteEntry(
            name="ddn",
            title="DDN",
            description="Shrinks the change while the image fools and widens it while it does not.",
            norm="l2",
            eps=None,
            attack=DDN(steps=search_steps),
        ),
        SuiteEntry(
            name="fmn_linf",
            title="FMN Linf",
            description="Looks for the smallest largest change of any pixel value that fools.",
            norm="linf",
            eps=None,
            attack=FMN(steps=search_steps),
        ),
        SuiteEntry(
            name="cw_l2",
            title="C&W L2",
            description="A thorough search for the smallest change that fools at all.",
            norm="l2",
            eps=None,
            attack=carlini,
        ),
        SuiteEntry(
            name="cw_l2_k5",
            title="C&W L2, κ = 5",
            description="As C&W, but the wrong class must win clearly, which costs a larger change.",
            norm="l2",
            eps=None,
            attack=CarliniWagnerL2(steps=search_steps, bisections=bisections, initial_constant=0.1, confidence=5.0),
        ),
    )


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
