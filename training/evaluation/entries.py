"""One attack of an evaluation, and the budgets that attacks keep."""

import math
from dataclasses import dataclass
from typing import Literal

from training.attacks import Attack
from training.attacks.ball import BALL_NORMS

__all__ = ["BUDGETED", "AttackNorm", "Budgets", "NormName", "SuiteEntry", "budgets_for"]

NormName = Literal["linf", "l2"]
AttackNorm = Literal["linf", "l2", "l1", "l0", "patch", "spatial"]
"""How an attack's change is measured: l0 counts pixels, with a budget values; patch and spatial have no measure."""

BUDGETED: tuple[NormName, ...] = ("linf", "l2")
"""The norms in which the threat model has a budget; attacks of another kind belong to no worst case."""


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """The largest change that the threat model allows, in units of the [0, 1] image."""

    linf: float
    l2: float

    def of(self, norm: str) -> float:
        """The budget in this norm, one of BUDGETED."""
        return {"linf": self.linf, "l2": self.l2}[norm]


@dataclass(frozen=True, kw_only=True)
class SuiteEntry:
    """One attack and how it is spoken of."""

    name: str
    title: str
    description: str
    """One sentence for a reader who knows nothing of attacks."""
    norm: AttackNorm
    """In which the attack is measured."""
    eps: float | None
    """None: it looks for the smallest change that fools, or is of a kind without a budget."""
    attack: Attack
    is_adaptive: bool = False
    """Whether it knows the detectors and the calibration."""
    images: int | None = None
    """Of a dear attack: how many of the chosen images it takes; None: all."""
    least_classes: int = 2
    """Of a model that it can attack."""

    def __post_init__(self) -> None:
        if self.eps is not None and self.norm not in BALL_NORMS:
            raise ValueError(f"{self.name}: expected no budget for a change of kind {self.norm}, got {self.eps}")


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
