"""What the `evaluate` command is asked for."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.errors import SetupError

__all__ = ["Options"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for."""

    bundle: str
    """A directory, or the name of a shipped bundle."""
    run: Path
    out: Path
    data: Path | None = None
    images: int | None = None
    """How many images are attacked; None chooses by the size of the test set."""
    attacks: tuple[str, ...] = ()
    """All of the suite when empty."""
    l2_eps: float | None = None
    """None: see `training.evaluation.suite.budgets_for`."""
    seed: int = 0
    budget: Literal["quick", "standard", "full"] = "standard"
    """How much the attacks may compute."""
    non_adaptive: bool = False
    """Leaves out the attacks that know the detectors."""
    transfer: Sequence[Path] = ()
    """Other runs, on whose networks attacks are made too."""
    surrogate: Sequence[Path] = ()
    """Runs of attackers who fit and calibrate these detectors on networks of their own."""
    publish: bool = False
    result: Path | None = None
    """Where the small file for docs/results goes."""

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise SetupError(f"--images: expected at least 1, got {self.images}")
        if self.l2_eps is not None and not (math.isfinite(self.l2_eps) and self.l2_eps > 0):
            raise SetupError(f"--l2-eps: expected a number above 0, got {self.l2_eps}")
        if self.seed < 0:
            raise SetupError(f"--seed: expected 0 or more, got {self.seed}")
        if self.publish and (self.is_quick or self.attacks or self.non_adaptive):
            raise SetupError(
                "--publish: needs the whole suite at standard strength or more; leave --budget quick, --attacks and "
                "--non-adaptive out"
            )
        for flag, runs, name in (("transfer", self.transfer, "transfer1_"), ("surrogate", self.surrogate, "limited1_")):
            if runs and self.attacks and not any(attack.startswith(name[:-2]) for attack in self.attacks):
                raise SetupError(f"--{flag}: expected {name}... among --attacks, which leaves its attacks out; add it")
        if self.surrogate and self.non_adaptive:
            raise SetupError("--surrogate: expected no --non-adaptive beside it, which leaves such attacks out")
        if self.result and self.is_quick:
            raise SetupError("--result: the figures of a quick run are not kept; leave --budget quick out")

    @property
    def is_quick(self) -> bool:
        """Whether the attacks are too weak for their figures to be quoted."""
        return self.budget == "quick"

    def command(self) -> str:
        """The command line that gives the same figures."""
        words = ["advsentry-train", "evaluate", self.bundle, "--run", str(self.run), "--out", str(self.out)]
        words += [] if self.data is None else ["--data", "DATA"]  # where it lies is this machine's affair
        for name in ("images", "l2_eps"):
            value = getattr(self, name)
            words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
        words += ["--attacks", ",".join(self.attacks)] if self.attacks else []
        words += ["--seed", str(self.seed)]
        words += [] if self.budget == "standard" else ["--budget", self.budget]
        for other in self.transfer:
            words += ["--transfer", str(other)]
        for other in self.surrogate:
            words += ["--surrogate", str(other)]
        return shlex.join(words + (["--non-adaptive"] if self.non_adaptive else []))
