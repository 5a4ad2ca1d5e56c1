"""Checks that attacks share."""

import math

from training.attacks.threat import named_norm

__all__ = ["check_budget"]


def check_budget(attack: str, norm: str, eps: float, step: float) -> None:
    """Refuses a budget that makes no sense.

    Raises:
        SetupError: an unknown norm.
        ValueError: eps not above 0, or step below 0; NaN too.
    """
    named_norm(norm)
    if not (math.isfinite(eps) and eps > 0):
        raise ValueError(f"{attack}: expected eps above 0, got {eps}")
    if not (math.isfinite(step) and step >= 0):
        raise ValueError(f"{attack}: expected a step of at least 0, got {step}")
