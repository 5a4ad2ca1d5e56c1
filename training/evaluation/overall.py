"""One figure for many attacks: mean and worst AUROC of the fused score."""

from collections.abc import Sequence

import numpy as np

from training.evaluation.bootstrap import Estimate
from training.evaluation.results import AttackResult, AurocOverAttacks, Overall

__all__ = ["LEAST_SUCCESSES", "overall"]

LEAST_SUCCESSES = 20
"""Successful images below which an attack's AUROC says too little to be the worst of many."""


def overall(attacks: Sequence[AttackResult]) -> Overall:
    """Over those of the attacks that do not know the detectors."""
    fused = {attack.name: attack.aurocs[-1] for attack in attacks if not attack.is_adaptive}
    return Overall(
        successful=_over({name: score.successful for name, score in fused.items()}, least=LEAST_SUCCESSES),
        all=_over({name: score.all for name, score in fused.items()}, least=1),
    )


def _over(estimates: dict[str, Estimate], *, least: int) -> AurocOverAttacks:
    values = {name: one.value for name, one in estimates.items() if one.value is not None and one.n >= least}
    worst = min(values, key=lambda name: values[name], default=None)
    return AurocOverAttacks(
        attacks=len(values),
        mean=float(np.mean(list(values.values()))) if values else None,
        worst=None if worst is None else values[worst],
        worst_attack=worst,
        worst_images=0 if worst is None else estimates[worst].n,
        left_out=tuple(name for name in estimates if name not in values),
    )
