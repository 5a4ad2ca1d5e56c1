"""`advsentry-train minmax KIND RUN ...`: one perturbation against several domains, beside its baselines."""

import argparse
import dataclasses
import io
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.detection.types import Bytes8, Integers
from service.errors import SetupError
from training.attacks.ball import Ball, BallNorm
from training.attacks.minmax import MinMax
from training.attacks.rounding import nearest_8_bit
from training.checkpoint import write_atomically
from training.config import recipe_to_dict
from training.evaluation.progress import reporting
from training.evaluation.provenance import commit, machine
from training.evaluation.result_file import result_text
from training.folders import make_folder
from training.minmax.experiment import Outcome, figures, outcomes
from training.minmax.judges import judged, load_judges
from training.minmax.problems import Problem
from training.minmax.settings import Kind, published
from training.minmax.subject import chosen_images, problem_of
from training.precision import deterministic
from training.side_by_side import load_alike, parts_of_all
from training.spelling import budget_words

__all__ = ["Options", "run_command", "run_experiment"]

_SPOKEN = ("images", "norm", "eps", "alpha", "beta", "gamma", "steps", "group")
"""Options that a command line names where they are not the default."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for; None leaves a value to the paper (training.minmax.settings)."""

    kind: Kind
    runs: tuple[Path, ...]
    out: Path
    data: Path | None = None
    images: int = 200
    """Test images, with the classes in proportion; of universal groups as many as are full."""
    norm: BallNorm = "linf"
    eps: float | None = None
    alpha: float | None = None
    beta: float | None = None
    gamma: float | None = None
    steps: int | None = None
    weights: tuple[float, ...] = ()
    """Of the domains, held fixed, as one baseline more."""
    group: int = 5
    """Images that share a universal perturbation."""
    normalise: bool = False
    bundle: tuple[str, ...] = ()
    """Bundles that are asked about the images, by directory or shipped name."""
    keep: Path | None = None
    """An .npz file of attacked images, weights and who failed, image by image."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("images", "group", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SetupError(f"--{name}: expected at least 1, got {value}")
        if self.seed < 0:
            raise SetupError(f"--seed: expected 0 or more, got {self.seed}")
        for option, path, ending in (("--out", self.out, ".json"), ("--keep", self.keep, ".npz")):
            if path is not None and (path.suffix != ending or path.is_dir()):
                raise SetupError(f"{option}: expected a file NAME{ending}, got {path}")

    def settings(self, channels: int) -> MinMax:
        """The algorithm's, for images of this many channels.

        Raises:
            SetupError: a value that it refuses.
        """
        row, steps = published(self.kind, self.norm, channels)
        given = {name: getattr(self, name) for name in ("eps", "alpha", "beta", "gamma")}
        values = {name: getattr(row, name) if value is None else value for name, value in given.items()}
        return MinMax(
            ball=Ball(norm=self.norm, eps=values.pop("eps")),
            steps=self.steps or steps,
            weights=self.weights or "learned",
            normalise=self.normalise,
            **values,
        )

    def command(self) -> str:
        """The command line that gives the same figures."""
        words = ["advsentry-train", "minmax", self.kind, *map(str, self.runs), "--out", str(self.out)]
        words += [] if self.data is None else ["--data", "DATA"]  # where it lies is this machine's affair
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _SPOKEN and value != field.default:
                words += [f"--{field.name}", str(value)]
        words += ["--weights", ",".join(map(str, self.weights))] if self.weights else []
        words += [word for name in self.bundle for word in ("--bundle", name)]
        words += ["--normalise"] if self.normalise else []
        return shlex.join([*words, "--seed", str(self.seed)])


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `minmax`; gives its exit status."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Options)}
    options = Options(**{**values, "runs": tuple(arguments.runs), "bundle": tuple(arguments.bundle)})
    metrics = run_experiment(options)
    if arguments.json:
        sys.stdout.write(json.dumps({"result": str(options.out), "metrics": metrics}) + "\n")
    else:
        lines = [f"{name} {value:.4g}" for name, value in metrics.items()]
        sys.stdout.write("".join(f"{line}\n" for line in [*lines, f"result: {options.out}"]))
    return 0


def run_experiment(options: Options) -> dict[str, float]:
    """Makes the perturbations, writes the files, gives the figures.

    Raises:
        SetupError: a run or its data are missing, runs do not belong together, or an option does not fit.
    """
    began, code = time.monotonic(), commit()  # now, while it is the code that runs
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    runs = load_alike(options.runs, device)
    settings = options.settings(runs[0].input_shape[2])
    test = parts_of_all(runs, options.data)[0].test
    chosen = chosen_images(options.kind, test.labels, options.images, options.group, options.seed)
    problem = problem_of(options.kind, runs, options.runs, test, chosen)
    judges = load_judges(options.bundle, runs[0].input_shape, problem.names)
    make_folder(options.out.parent, "--out")
    with reporting() as progress, deterministic(0):
        found = outcomes(
            problem, settings, seed=options.seed, starts_at_0=options.kind == "universal", progress=progress
        )
    made = {name: _images(problem, outcome.deltas) for name, outcome in found.items()}
    clean = np.ascontiguousarray(test.images[chosen.ravel()])
    metrics = figures(problem, found) | judged(judges, clean, made)
    if options.keep is not None:
        _keep(options.keep, problem, found, made, chosen)
    text = result_text(
        options.out.stem,
        runs[0],
        command=options.command(),
        seed=runs[0].recipe.train.seed,
        commit=code,
        machine=machine(),
        seconds=round(time.monotonic() - began, 1),
        data={
            "set": runs[0].recipe.data.set,
            "split": "test",
            "test_images": len(test),
            "attacked_images": int(chosen.size),
            "experiment": options.kind,
            "budget": f"{settings.ball.norm} {budget_words(settings.ball.eps)}",
            "networks": [run.recipe.model.name for run in runs],
        },
        metrics=metrics,
        recipe=_shared([recipe_to_dict(run.recipe) for run in runs]),
    )
    write_atomically(options.out, text)
    return metrics


def _shared(recipes: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The values that all runs have in common."""
    first, *others = recipes
    return {
        name: {key: value for key, value in table.items() if all(one[name][key] == value for one in others)}
        for name, table in first.items()
    }


def _images(problem: Problem, deltas: Tensor) -> Bytes8:
    """(N, H, W, C) of all attacked images, those of a group one after the other."""
    return nearest_8_bit((problem.images + deltas[:, None]).flatten(0, 1)).cpu().numpy()


def _keep(
    path: Path, problem: Problem, found: Mapping[str, Outcome], made: Mapping[str, Bytes8], chosen: Integers
) -> None:
    make_folder(path.parent, "--keep")
    arrays: dict[str, Any] = {"positions": chosen, "domains": np.array(problem.names)}
    for name, outcome in found.items():
        arrays[f"{name}_images"] = made[name]
        arrays[f"{name}_weights"] = outcome.weights.cpu().numpy()
        arrays[f"{name}_fails"] = outcome.fails.cpu().numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())
