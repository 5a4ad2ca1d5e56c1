"""The `retrieve` command."""

import argparse
import dataclasses
import json
import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from service.errors import SetupError
from training.arguments import check_flags
from training.checkpoint import Run, load_run, write_atomically
from training.config import recipe_to_dict
from training.evaluation.progress import reporting
from training.evaluation.provenance import commit, machine
from training.folders import make_folder
from training.precision import deterministic
from training.retrieval.gallery import Gallery, gallery_of
from training.retrieval.measure import QueryAttack, measure_retrieval
from training.retrieval.results import over_seeds, run_names

__all__ = ["Options", "retrieve", "run_command"]

QUICK_STEPS, QUICK_RESTARTS = 10, 1
SHOWN = ("benign_r1", "worst_r1", "benign_map_r", "worst_map_r")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for."""

    runs: tuple[Path, ...]
    out: Path
    data: Path | None = None
    queries: int = 500
    eps: float | None = None
    """None: the runs' own."""
    steps: int = 50
    restarts: int = 2
    seed: int = 0
    quick: bool = False

    def __post_init__(self) -> None:
        check_flags(self.out, seed=self.seed, steps=self.steps, restarts=self.restarts)
        if self.queries < 2:
            raise SetupError(f"--queries: expected at least 2, got {self.queries}")
        if self.eps is not None and not (math.isfinite(self.eps) and self.eps > 0):
            raise SetupError(f"--eps: expected a number above 0, got {self.eps}")

    def command(self) -> str:
        """The command line that gives the same figures."""
        words = ["advsentry-train", "retrieve", *map(str, self.runs), "--out", str(self.out)]
        words += [] if self.data is None else ["--data", "DATA"]  # where it lies is this machine's affair
        words += [] if self.eps is None else ["--eps", f"{self.eps:.17g}"]
        for name in ("queries", "steps", "restarts", "seed"):
            words += [f"--{name}", str(getattr(self, name))]
        return shlex.join(words + (["--quick"] if self.quick else []))


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `retrieve`; gives its exit status."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Options)}
    options = Options(**{**values, "runs": tuple(arguments.runs)})
    figures = retrieve(options)
    if arguments.json:
        sys.stdout.write(json.dumps({"result": str(options.out), "runs": figures}) + "\n")
        return 0
    if options.quick:
        sys.stdout.write("quick run: do not quote these figures\n")
    for name, own in figures.items():
        sys.stdout.write(f"{name}: {', '.join(f'{figure} {own[figure]:.3f}' for figure in SHOWN)}\n")
    sys.stdout.write(f"result: {options.out}\n")
    return 0


def retrieve(options: Options) -> dict[str, dict[str, float]]:
    """Measures the runs one by one and writes the file; gives the figures as over_seeds() names them.

    Raises:
        SetupError: a run is not finished, its data are missing or others, runs do not belong together, or `--out`
            cannot be written.
    """
    began, code = time.monotonic(), commit()  # now, while it is the code that runs
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    runs = [load_run(path, device=device) for path in options.runs]
    names = run_names(runs)
    attack = _common_attack(runs, options)
    gallery = gallery_of(runs[0], options.data, options.queries, options.seed)
    make_folder(options.out.parent, "--out")
    with reporting() as progress, deterministic(0):
        figures = {
            name: {"training_seconds": round(run.seconds, 1)} | measure_retrieval(run, gallery, attack, progress)
            for name, run in zip(names, runs, strict=True)
        }
    shown = over_seeds(figures, runs)
    each = {
        name: {"recipe": recipe_to_dict(run.recipe), "metrics": figures[name]}
        for name, run in zip(names, runs, strict=True)
    }
    seconds = round(time.monotonic() - began, 1)
    write_atomically(options.out, _file(options, runs[0], gallery, each, shown, code, seconds))
    return shown


def _common_attack(runs: Sequence[Run], options: Options) -> QueryAttack:
    """On the queries of all runs, which have to be of one set, one choice of classes and one threat model.

    Raises:
        SetupError: they are not.
    """
    first = runs[0].recipe
    for run in runs[1:]:
        for what, ours, theirs in (
            ("data", first.data, run.recipe.data),
            ("attack.norm", first.attack.norm, run.recipe.attack.norm),
            ("attack.eps", options.eps or first.attack.eps, options.eps or run.recipe.attack.eps),
        ):
            if ours != theirs:
                raise SetupError(
                    f"{run.path}: expected {what} {ours} as {runs[0].path} has, got {theirs}; search apart"
                )
    return QueryAttack(
        norm=first.attack.norm,
        eps=options.eps or first.attack.eps,
        steps=QUICK_STEPS if options.quick else options.steps,
        restarts=QUICK_RESTARTS if options.quick else options.restarts,
        seed=options.seed,
    )


def _file(
    options: Options,
    run: Run,
    gallery: Gallery,
    each: Mapping[str, Mapping[str, Any]],
    shown: Mapping[str, Mapping[str, float]],
    code: str,
    seconds: float,
) -> str:
    first = run.recipe
    classes = "unseen" if gallery.is_unseen else "seen"
    data = {"set": first.data.set, "classes": classes, "images": len(gallery.images), "queries": len(gallery.queries)}
    value = {
        "name": options.out.stem,
        "command": options.command(),
        "recipe": {"norm": first.attack.norm, "eps": options.eps or first.attack.eps},
        "seed": options.seed,
        "commit": code,
        "machine": machine(),
        "seconds": seconds,
        "data": data | ({"quick": True} if options.quick else {}),
        "runs": each,
        "metrics": {f"{name}/{figure}": value for name, own in shown.items() for figure, value in own.items()},
    }
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
