"""`advsentry-train analyse RUN ...`: the papers' analyses of finished runs, side by side on one page."""

import argparse
import dataclasses
import json
import math
import shlex
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from service.errors import SetupError
from training.analysis.analyse import Settings, analyse
from training.analysis.headline import headline
from training.analysis.lowpass import LowPass
from training.analysis.page import page
from training.analysis.results import Analysis
from training.analysis.subjects import LEAST_IMAGES, MOST_IMAGES, common_budget, load_subjects
from training.checkpoint import code_version, write_atomically
from training.evaluation.progress import reporting
from training.evaluation.provenance import commit, libraries, machine
from training.evaluation.results import Provenance
from training.folders import make_folder
from training.precision import deterministic

__all__ = ["Options", "run_analysis", "run_command"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for."""

    runs: tuple[Path, ...]
    out: Path
    data: Path | None = None
    images: int = 512
    """Test images; all where there are fewer."""
    heat_map_images: int = 64
    """How many of them each frequency is tried on."""
    eps: float | None = None
    """Budget of the attack; None takes that of the runs."""
    low_pass: LowPass = "published"
    seed: int = 0
    result: Path | None = None
    """The small file for docs/results."""

    def __post_init__(self) -> None:
        if not LEAST_IMAGES <= self.images <= MOST_IMAGES:
            raise SetupError(f"--images: expected {LEAST_IMAGES} to {MOST_IMAGES}, got {self.images}")
        if self.heat_map_images < 1:
            raise SetupError(f"--heat-map-images: expected at least 1, got {self.heat_map_images}")
        if self.eps is not None and not (math.isfinite(self.eps) and self.eps > 0):
            raise SetupError(f"--eps: expected a number above 0, got {self.eps:g}")
        if self.seed < 0:
            raise SetupError(f"--seed: expected 0 or more, got {self.seed}")
        if self.result is not None and (self.result.suffix != ".json" or self.result.is_dir()):
            raise SetupError(f"--result: expected a file NAME.json, got {self.result}")

    def command(self) -> str:
        """The command line that gives the same figures."""
        words = ["advsentry-train", "analyse", *map(str, self.runs), "--out", str(self.out)]
        words += [] if self.data is None else ["--data", "DATA"]  # where it lies is this machine's affair
        words += [] if self.eps is None else ["--eps", f"{self.eps:.17g}"]
        for name in ("images", "heat_map_images", "low_pass", "seed"):
            words += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        words += [] if self.result is None else ["--result", str(self.result)]
        return shlex.join(words)


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `analyse`; gives its exit status."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Options)}
    options = Options(**{**values, "runs": tuple(arguments.runs)})
    analysis = run_analysis(options)
    page_path = options.out / "index.html"
    if arguments.json:
        figures = {run.name: headline(run) for run in analysis.runs}
        paths = {"page": str(page_path), "analysis": str(options.out / "analysis.json")}
        sys.stdout.write(json.dumps({**paths, "runs": figures}) + "\n")
        return 0
    for run in analysis.runs:
        sys.stdout.write(f"{run.name}: clean {run.clean_accuracy:.1%}, attacked {run.attacked_accuracy:.1%}\n")
    sys.stdout.write(f"page: {page_path}\n")
    return 0


def run_analysis(options: Options) -> Analysis:
    """Analyses and writes everything that the options ask for.

    Raises:
        SetupError: a run or its data are missing, runs do not belong together, or `--out` cannot be a folder.
    """
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    code = commit()  # now, while it is the code that runs
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subjects, test = load_subjects(options.runs, options.data, options.images, options.seed, device)
    norm, eps = common_budget(subjects, options.eps)
    settings = Settings(
        norm=norm, eps=eps, low_pass=options.low_pass, heat_map_images=options.heat_map_images, seed=options.seed
    )
    make_folder(options.out, "--out")
    if options.result is not None:
        make_folder(options.result.parent, "--result")
    with reporting() as progress, deterministic(0):
        runs = tuple(analyse(subject, test, settings, progress) for subject in subjects)
    first = subjects[0].run
    analysis = Analysis(
        data_name=first.recipe.data.set,
        class_names=first.class_names,
        input_shape=first.input_shape,
        labels=test.labels,
        settings=settings,
        runs=runs,
        provenance=Provenance(
            command=options.command(),
            seed=options.seed,
            code_version=code_version(),
            commit=code,
            machine=machine(),
            started=started,
            seconds=round(time.monotonic() - began, 1),
            libraries=libraries(),
        ),
    )
    write_atomically(options.out / "analysis.json", analysis.to_json())
    write_atomically(options.out / "index.html", page(analysis))
    if options.result is not None:
        write_atomically(options.result, analysis.to_result(options.result.stem))
    return analysis
