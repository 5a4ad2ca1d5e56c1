"""What a check of the sheet is, and how its figures become a verdict."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from deploy.asked import Asked
from deploy.reliability.rig import Rig

__all__ = ["Check", "Figures", "Judged", "NotRun", "Verdict"]

Figures: TypeAlias = Mapping[str, float]
"""Names to finite numbers; the unit is the end of the name."""


class NotRun(Exception):
    """The check cannot be made here; its text says why."""


class Verdict(StrEnum):
    """What came of a check."""

    PASS = "pass"
    FAIL = "FAIL"
    NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A check's figures beside what was asked."""

    verdict: Verdict
    figures: Figures = field(default_factory=dict)
    missed: tuple[str, ...] = ()
    """Figures that are not as asked."""
    why: str = ""
    """What went wrong, or why it did not run."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One row of the sheet."""

    number: str
    """Such as "R-1"."""
    text: str
    """What is done."""
    asked: Mapping[str, str]
    """Figures to what is asked of them, such as "<= 5"; the others are told only."""
    run: Callable[[Rig], Figures]
    timed: frozenset[str] = frozenset()
    """Figures that a slow or busy machine spoils; the tests do not judge them."""
    is_quick: bool = False
    """Whether the tests run it."""

    def judged(self, figures: Figures, *, timed: bool = True) -> Judged:
        """The verdict.

        Args:
            timed: whether figures that a slow machine spoils count.
        """
        missed = tuple(
            name
            for name, bound in self.asked.items()
            if (timed or name not in self.timed)
            and (name not in figures or Asked.parsed(bound).reached(figures[name]) != "yes")
        )
        return Judged(verdict=Verdict.FAIL if missed else Verdict.PASS, figures=figures, missed=missed)
