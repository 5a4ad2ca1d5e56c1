"""What the `robustness` command is asked for."""

import dataclasses
import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from service.errors import SetupError
from training.arguments import check_flags
from training.attacks.ball import Ball
from training.evaluation.strength import FULL, QUICK, Strength

__all__ = ["Options"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for."""

    run: Path
    out: Path
    data: Path | None = None
    images: int | None = None
    """How many test images are attacked; None: 1,000, or all where there are fewer."""
    attacks: tuple[str, ...] = ()
    """All of the battery when empty."""
    restarts: int = FULL.restarts
    queries: int = FULL.queries
    """Of Square within aa_like."""
    l2_eps: float | None = None
    """None: see `training.evaluation.suite.budgets_for`."""
    norms: tuple[Ball, ...] = ()
    """Of the worst case over norms; empty: those that the run was trained against, if it was against several."""
    mask: str | None = None
    """What tells background from foreground, for attacks on either; None: as the recipe has it, else there are none."""
    mask_run: Path | None = None
    """Whose network the maps of such masks are of."""
    seed: int = 0
    quick: bool = False

    def __post_init__(self) -> None:
        check_flags(self.out, seed=self.seed, images=self.images, restarts=self.restarts, queries=self.queries)
        if self.l2_eps is not None and not (math.isfinite(self.l2_eps) and self.l2_eps > 0):
            raise SetupError(f"--l2-eps: expected a number above 0, got {self.l2_eps}")

    @property
    def strength(self) -> Strength:
        """Of the attacks."""
        return QUICK if self.quick else dataclasses.replace(FULL, restarts=self.restarts, queries=self.queries)

    def command(self) -> str:
        """The command line that gives the same figures."""
        words = ["advsentry-train", "robustness", str(self.run), "--out", str(self.out)]
        words += [] if self.data is None else ["--data", "DATA"]  # where it lies is this machine's affair
        for name in ("images", "l2_eps", "mask", "mask_run"):
            value = getattr(self, name)
            words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
        for name in ("restarts", "queries"):
            value = getattr(self, name)
            words += [] if value == getattr(FULL, name) else [f"--{name}", str(value)]
        pairs = [f"{ball.norm}={ball.eps!r}" for ball in self.norms]
        words += ["--norms", ",".join(pairs)] if pairs else []
        words += ["--attacks", ",".join(self.attacks)] if self.attacks else []
        words += ["--seed", str(self.seed)]
        return shlex.join(words + (["--quick"] if self.quick else []))
