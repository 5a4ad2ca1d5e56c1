"""How strong the attacks of `robustness` are."""

from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "Strength"]


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How much the attacks may compute."""

    few: int = 20
    """Steps of pgd_20."""
    steps: int = 100
    restarts: int = 5
    queries: int = 5_000


FULL = Strength()
QUICK = Strength(few=3, steps=5, restarts=2, queries=20)
"""Far too weak for a figure; for tests and a first look."""
