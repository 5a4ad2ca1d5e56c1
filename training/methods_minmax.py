"""The section of a recipe on training against several norms at once."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from training.checks import require
from training.methods import AttackConfig

__all__ = ["DomainNorm", "MinMaxConfig"]

DomainNorm = Literal["linf", "l2", "l1", "l0"]


@dataclass(frozen=True, kw_only=True)
class MinMaxConfig:
    """Adversarial training over several norms (training/losses/domains.py): how their losses become one."""

    SECTION: ClassVar[str] = "minmax"

    combine: Literal["none", "learned", "average", "max", "msd"] = "none"
    """learned: weights for each image, the larger the harder the norm, our choice against several norms; average: equal
    weights; max: the worst norm of each image alone; msd: one attack that takes the steepest norm at each step. none is
    plain adversarial training."""
    norms: tuple[DomainNorm, ...] = ()
    """The domains. attack.norm, which the bundle states, is one of them; attack.steps and attack.warmup_epochs hold for
    each."""
    eps: tuple[float, ...] = ()
    """A budget for each, images being in [0, 1]; of l0 the number of values that change."""
    gamma: float = 1.0
    """learned: how dearly the weights are held at 1/K; near 0 it is max, far above the losses it is average."""
    spread: float = 0.02
    """Share of an image's values that a step in l1 moves."""

    def __post_init__(self) -> None:
        norms, eps = list(self.norms), list(self.eps)
        require(self.gamma > 0 and math.isfinite(self.gamma), "minmax.gamma", "a number above 0", self.gamma)
        require(0 < self.spread <= 1, "minmax.spread", "a number above 0, at most 1", self.spread)
        require(len(set(norms)) == len(norms), "minmax.norms", "each norm once", norms)
        require(self.combine == "none" or bool(norms), "minmax.norms", "one norm or more", norms)
        require(len(eps) == len(norms), "minmax.eps", f"a budget for each of {norms}", eps)
        for norm, budget in zip(norms, eps, strict=True):
            require(math.isfinite(budget) and budget > 0, "minmax.eps", "numbers above 0", eps)
            require(norm != "linf" or budget <= 1, "minmax.eps", "at most 1 for norm linf", budget)
            require(norm != "l0" or budget == int(budget), "minmax.eps", "a whole number for norm l0", budget)

    @property
    def budgets(self) -> dict[DomainNorm, float]:
        """Of each norm; empty where several norms are off."""
        return {} if self.combine == "none" else dict(zip(self.norms, self.eps, strict=True))

    def check_beside(self, attack: AttackConfig, *, trades_weight: float) -> None:
        """Refuses other sections that would have no effect, or say another threat model.

        Raises:
            SetupError: as for training.checks.require.
        """
        if not self.budgets:
            return
        stated = {norm: eps for norm, eps in self.budgets.items() if norm in ("linf", "l2")}
        require(
            not stated or stated.get(attack.norm) == attack.eps,
            "attack.eps",
            f"with minmax a budget among its own, {stated}, since it is what the bundle states",
            {attack.norm: attack.eps},
        )
        for key, wanted in (("name", "pgd"), ("loss", "ce")):
            require(getattr(attack, key) == wanted, f"attack.{key}", f"{wanted} with minmax", getattr(attack, key))
        for key in ("step", "first_steps", "renew_epochs", "guard"):
            require(not getattr(attack, key), f"attack.{key}", "none with minmax", getattr(attack, key))
        require(
            self.combine == "msd" or not trades_weight,
            "trades.weight",
            f"0 with minmax.combine = {self.combine}, whose weighted cross-entropy takes the same place",
            trades_weight,
        )
