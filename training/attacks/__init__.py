"""Attacks. A new one: one file and, if recipes may name it, one line in ATTACKS and one row in its test table.

The others are for evaluation: they stop at the first image that fools, which is hardly an example to learn from.
"""

from collections.abc import Callable, Mapping

from service.errors import SetupError
from training.attacks.apgd import Apgd, TargetedApgd
from training.attacks.fgsm import Fgsm
from training.attacks.mim import Mim
from training.attacks.n_fgsm import NFgsm
from training.attacks.pgd import Pgd
from training.attacks.protocol import Attack, undisturbed
from training.attacks.square import Square
from training.attacks.union import FirstFooling, aa_like
from training.methods import AttackConfig

__all__ = [
    "ATTACKS",
    "Apgd",
    "Attack",
    "Fgsm",
    "FirstFooling",
    "Mim",
    "NFgsm",
    "Pgd",
    "Square",
    "TargetedApgd",
    "aa_like",
    "build_attack",
    "undisturbed",
]


def _pgd(config: AttackConfig) -> Attack:
    return Pgd(norm=config.norm, eps=config.eps, step=config.step, steps=config.steps, loss=config.loss)


def _fgsm(config: AttackConfig) -> Attack:
    if config.step not in (0, config.eps):
        raise SetupError(f"attack.step: expected 0 or eps for fgsm, got {config.step:g}; n_fgsm has a step")
    return Fgsm(norm=config.norm, eps=config.eps)


def _n_fgsm(config: AttackConfig) -> Attack:
    if config.norm != "linf":
        raise SetupError(f"attack.norm: expected linf for n_fgsm, got {config.norm}")
    return NFgsm(eps=config.eps, step=config.step)


ATTACKS: Mapping[str, Callable[[AttackConfig], Attack]] = {"pgd": _pgd, "fgsm": _fgsm, "n_fgsm": _n_fgsm}


def build_attack(config: AttackConfig) -> Attack | None:
    """The training attack of a recipe; None for `none`, training on clean images.

    Raises:
        SetupError: an unknown name, or a norm that the attack does not have.
    """
    if config.name == "none":
        return None
    if config.name not in ATTACKS:
        raise SetupError(f"attack.name: expected one of {', '.join(ATTACKS)} or none, got {config.name!r}")
    return ATTACKS[config.name](config)
