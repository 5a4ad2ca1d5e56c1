"""The `curves` command: accuracy at growing budgets of finished runs side by side, and signs of gradient masking."""

import argparse
import dataclasses
import json
import math
import re
import shlex
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from service.errors import SetupError
from training.analysis.subjects import Subject, common_budget, load_subjects
from training.arguments import check_flags
from training.attacks.rounding import levels
from training.checkpoint import Run, load_run, write_atomically
from training.config import recipe_to_dict
from training.data.types import ImageSet
from training.evaluation.attacking import PATIENCE
from training.evaluation.curves import SHARES, Curves, measure_curves
from training.evaluation.progress import reporting
from training.evaluation.provenance import commit, machine
from training.evaluation.strength import FULL, QUICK, Strength
from training.evaluation.transfer import check_same_data
from training.folders import make_folder
from training.launch import is_first
from training.network_digest import network_digest
from training.precision import deterministic
from training.processes import connected

__all__ = ["Options", "averaged", "measure", "run_command"]

_SEED = re.compile(r"(?P<name>.+)-s\d+")
_SPREAD = ("clean_accuracy", "pgd_100_accuracy", "worst_accuracy")
"""Figures whose standard deviation over the seeds is told too."""
_SUMMED = ("masking_signs", "objective_rises")
"""Figures that are counted over the seeds instead of averaged."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for."""

    runs: tuple[Path, ...]
    out: Path
    data: Path | None = None
    images: int = 500
    """Test images; all where there are fewer."""
    eps: float | None = None
    """Linf budget; None takes that of the runs."""
    restarts: int = FULL.restarts
    queries: int = FULL.queries
    """Of Square."""
    transfer: tuple[Path, ...] = ()
    """Runs by whose gradients all are attacked too."""
    seed: int = 0
    quick: bool = False

    def __post_init__(self) -> None:
        check_flags(self.out, seed=self.seed, images=self.images, restarts=self.restarts, queries=self.queries)
        if self.eps is not None and not (math.isfinite(self.eps) and self.eps > 0):
            raise SetupError(f"--eps: expected a number above 0, got {self.eps:g}")

    @property
    def strength(self) -> Strength:
        """Of the attacks."""
        return QUICK if self.quick else dataclasses.replace(FULL, restarts=self.restarts, queries=self.queries)

    def command(self) -> str:
        """The command line that gives the same figures."""
        words = ["advsentry-train", "curves", *map(str, self.runs), "--out", str(self.out)]
        words += [] if self.data is None else ["--data", "DATA"]  # where it lies is this machine's affair
        words += [] if self.eps is None else ["--eps", f"{self.eps:.17g}"]
        for name in ("images", "restarts", "queries", "seed"):
            words += [f"--{name}", str(getattr(self, name))]
        for path in self.transfer:
            words += ["--transfer", str(path)]
        return shlex.join(words + (["--quick"] if self.quick else []))


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `curves`; gives its exit status."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Options)}
    options = Options(**{**values, "runs": tuple(arguments.runs), "transfer": tuple(arguments.transfer)})
    found = measure(options)
    if not is_first():
        return 0
    for name, curves in found.items():
        for check in curves.checks:
            if not check.passed:
                sys.stderr.write(f"{name}: robustness is not established: {check.name}: {check.words}\n")
    metrics = averaged(found)
    if arguments.json:
        sys.stdout.write(json.dumps({"result": str(options.out), "metrics": metrics}) + "\n")
    else:
        lines = [] if not options.quick else ["quick run: do not quote these figures"]
        lines += [f"{name} {value:.4g}" for name, value in metrics.items()]
        sys.stdout.write("".join(f"{line}\n" for line in [*lines, f"result: {options.out}"]))
    return 0


def measure(options: Options) -> dict[str, Curves]:
    """Measures the runs and writes their file; gives what was found of each, by its name.

    Under torchrun every process calls it, and the first one writes.

    Raises:
        SetupError: a run is missing or unfinished, runs or data do not belong together, the budget is not Linf or too
            small for 8-bit images, or `--out` cannot be written.
    """
    began, code = time.monotonic(), commit()  # now, while it is the code that runs
    with connected(None, patience=PATIENCE) as (device, processes):
        ready = processes.together(lambda: _ready(options, device))
        with reporting() as progress, deterministic(0):
            found = {
                subject.name: measure_curves(
                    subject,
                    ready.test,
                    ready.others,
                    eps=ready.eps,
                    strength=options.strength,
                    seed=options.seed,
                    progress=progress,
                    processes=processes,
                )
                for subject in ready.subjects
            }
    if processes.is_first:
        seconds = time.monotonic() - began + sum(curves.spared for curves in found.values())
        on = machine(processes.shard.world)
        write_atomically(options.out, _file(options, ready, found, code, seconds, on))
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ready:
    """All that a measurement needs."""

    subjects: Sequence[Subject]
    test: ImageSet
    others: Sequence[Run]
    eps: float


def _ready(options: Options, device: torch.device) -> _Ready:
    subjects, test = load_subjects(options.runs, options.data, options.images, options.seed, device)
    norm, eps = common_budget(subjects, options.eps)
    if norm != "linf":
        raise SetupError(f"attack.norm: expected runs of linf, got {norm}; measure them with `robustness`")
    if levels(eps * SHARES[0]) < 1:
        raise SetupError(
            f"--eps: expected at least {1 / SHARES[0]:g}/255, so that {SHARES[0]:g} of it is a level of 8-bit images, "
            f"got {eps:g}"
        )
    others = [load_run(path, device=device) for path in options.transfer]
    for other in others:
        if network_digest(other.model) != network_digest(subjects[0].run.model):  # which may be one of the runs
            check_same_data("--transfer", subjects[0].run, other)
    make_folder(options.out.parent, "--out")
    return _Ready(subjects=subjects, test=test, others=others, eps=eps)


def _file(options: Options, ready: _Ready, found: Mapping[str, Curves], code: str, seconds: float, on: str) -> str:
    result = {
        "name": options.out.stem,
        "command": options.command(),
        "recipe": {"eps": ready.eps, "steps": options.strength.steps, "restarts": options.strength.restarts}
        | {"queries": options.strength.queries},
        "seed": options.seed,
        "commit": code,
        "machine": on,
        "seconds": round(seconds, 1),
        "data": {"set": ready.subjects[0].run.recipe.data.set, "split": "test", "images": len(ready.test)}
        | ({"quick": True} if options.quick else {}),
        "runs": {subject.name: recipe_to_dict(subject.run.recipe) for subject in ready.subjects},
        "metrics": averaged(found),
    }
    return json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def averaged(found: Mapping[str, Curves]) -> dict[str, float]:
    """NAME/FIGURE to its mean over the runs called NAME-sSEED, or NAME where a name tells no seed."""
    groups: dict[str, list[Curves]] = {}
    for name, curves in found.items():
        match = _SEED.fullmatch(name)
        groups.setdefault(match["name"] if match else name, []).append(curves)
    return {
        f"{name}/{figure}": value
        for name, several in groups.items()
        for figure, value in _over_seeds([curves.figures for curves in several]).items()
    }


def _over_seeds(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    figures: dict[str, float] = {"seeds": float(len(several))}
    for name in several[0]:
        values = [one[name] for one in several if name in one]
        figures[name] = sum(values) if name in _SUMMED else statistics.fmean(values)
        if name in _SPREAD and len(values) > 1:
            figures[f"{name}_spread"] = statistics.stdev(values)
    return figures
