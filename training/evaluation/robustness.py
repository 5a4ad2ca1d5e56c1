"""The `robustness` command: what a finished run withstands, measured on its torch model, without a bundle."""

import argparse
import dataclasses
import json
import math
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from service.errors import SetupError
from training.arguments import check_flags
from training.attacks.ball import Ball
from training.attacks.rounding import from_8_bit
from training.checkpoint import Run, load_run, write_atomically
from training.data import ImageSet
from training.data.splits import Parts
from training.detectors.detector import CleanViews
from training.detectors.gaussian import ClassGaussian
from training.detectors.mixture import GaussianMixture
from training.domain_attacks import domain_balls
from training.evaluation.attack_cache import ATTACKED, AttackCache
from training.evaluation.attacking import PATIENCE, Progress, attack_images
from training.evaluation.battery import battery
from training.evaluation.eight_bit import EightBit
from training.evaluation.held_out import choose_images
from training.evaluation.localized_suite import check_masked, localized_battery, masks_for
from training.evaluation.looking import looks
from training.evaluation.norms import NAMED, norm_battery, over_norms, parse_balls
from training.evaluation.progress import reporting
from training.evaluation.provenance import commit, machine
from training.evaluation.result_file import result_text
from training.evaluation.robust_figures import (
    Figures,
    Tried,
    Untouched,
    clean_figures,
    detection,
    geometry,
    robust_accuracies,
)
from training.evaluation.strength import FULL, QUICK, Strength
from training.evaluation.suite import Budgets, SuiteEntry, budgets_for, chosen
from training.evaluation.views import views_of
from training.folders import make_folder
from training.launch import is_first
from training.lessons import lessons_of
from training.masks import Masks
from training.precision import deterministic
from training.processes import Processes, connected

__all__ = ["Measured", "Options", "measure_robustness", "run_command"]

_IMAGES = 1_000
_BATCH = 250
_GEOMETRY = "pgd_20"
"""The attack whose images the geometry is about."""


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


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came out."""

    metrics: dict[str, float]
    left_out: tuple[str, ...]
    """Figures without an image to compute them from."""
    test_images: int
    attacked_images: int
    norms: tuple[Ball, ...] = ()
    """That the worst case over norms is about."""


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `robustness`; gives its exit status."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Options)}
    options = Options(**{**values, "norms": parse_balls(arguments.norms) if arguments.norms is not None else ()})
    measured = measure_robustness(options)
    if not is_first():
        return 0
    for name in measured.left_out:
        sys.stderr.write(f"{name}: left out, there is no image to compute it from\n")
    if arguments.json:
        sys.stdout.write(json.dumps({"result": str(options.out), "metrics": measured.metrics}) + "\n")
    else:
        lines = [] if not options.quick else ["quick run: do not quote these figures"]
        lines += [f"{name} {value:.4g}" for name, value in measured.metrics.items()]
        sys.stdout.write("".join(f"{line}\n" for line in [*lines, f"result: {options.out}"]))
    return 0


def measure_robustness(options: Options) -> Measured:
    """Measures a run and writes its file; under torchrun every process calls it, and the first one writes.

    Raises:
        SetupError: the run is not finished, its data are missing or too few, an attack is unknown, or `--out` cannot
            be written.
    """
    began, code = time.monotonic(), commit()  # now, while it is the code that runs
    with connected(None, patience=PATIENCE) as (device, processes):
        ready = processes.together(lambda: _ready(options, device))
        run, test, masks = ready.run, ready.parts.test, ready.masks
        with reporting() as progress, deterministic(0):
            figures, spared = _measure(ready, seed=options.seed, progress=progress, processes=processes)
            if masks is not None:
                figures |= looks(run.model, test.images[ready.positions], masks)
    names = {entry.name for entry in ready.entries}
    measured = Measured(
        metrics={name: value for name, value in figures.items() if value is not None},
        left_out=tuple(name for name, value in figures.items() if value is None),
        test_images=len(test),
        attacked_images=len(ready.positions),
        norms=tuple(ball for ball in ready.balls if f"{NAMED}{ball.norm}" in names),
    )
    seconds = time.monotonic() - began + spared
    if processes.is_first:
        on = machine(processes.shard.world)
        write_atomically(options.out, _file(options, run, measured, code, seconds, masks, on))
    return measured


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ready:
    """All that a measurement needs."""

    run: Run
    parts: Parts
    positions: np.ndarray
    """Of the test images that are attacked."""
    entries: tuple[SuiteEntry, ...]
    budgets: Budgets
    balls: tuple[Ball, ...]
    masks: Masks | None


def _ready(options: Options, device: torch.device) -> _Ready:
    run = load_run(options.run, device=device)
    budgets = _budgets(run, options)
    balls = options.norms or domain_balls(run.recipe)
    masks = masks_for(run, options.mask, options.mask_run, options.data)
    check_masked(options.attacks, masks)
    regions = localized_battery(budgets, options.strength, masks) if masks is not None else ()
    every = battery(budgets, len(run.class_names), options.strength)
    entries = chosen((*every, *norm_battery(balls, options.strength), *regions), options.attacks)
    parts = run.parts(options.data)
    positions = _positions(parts.test, options)
    make_folder(options.out.parent, "--out")
    return _Ready(run=run, parts=parts, positions=positions, entries=entries, budgets=budgets, balls=balls, masks=masks)


def _budgets(run: Run, options: Options) -> Budgets:
    attack = run.recipe.attack
    return budgets_for(attack.norm, attack.eps, math.prod(run.input_shape), l2_eps=options.l2_eps)


def _positions(test: ImageSet, options: Options) -> np.ndarray:
    """Of the test images that are attacked."""
    if not len(test):
        raise SetupError(f"{options.run}: expected test images, got none")
    if (options.images or 0) > len(test):
        raise SetupError(f"--images: expected at most the {len(test)} test images of the run, got {options.images}")
    return choose_images(test.labels, options.images or _IMAGES, options.seed)


def _clean_views(run: Run, fit: ImageSet) -> CleanViews:
    """Of the fit part, which may be the training part; what the densities are fitted on."""
    views = views_of(run.model, fit.images)
    return CleanViews(
        images=from_8_bit(fit.images[:0]),  # densities read embeddings only
        logits=views.logits,
        embedding=views.embedding,
        labels=torch.from_numpy(fit.labels),
        classifier=run.model,
        lessons=lessons_of(run, fit),
    )


def _measure(ready: _Ready, *, seed: int, progress: Progress, processes: Processes) -> tuple[Figures, float]:
    """The figures, and the seconds of attacks that earlier calls had spent."""
    run, test, positions = ready.run, ready.parts.test, ready.positions
    clean = _clean_views(run, ready.parts.fit)
    progress(f"clean: {len(test)} images")
    every = views_of(run.model, test.images)
    untouched = Untouched(
        images=np.ascontiguousarray(test.images[positions]),
        truth=test.labels[positions],
        views=every.take(torch.from_numpy(positions)),
    )
    mixture, gaussian = GaussianMixture.fit(clean), ClassGaussian.fit(clean)
    cache = AttackCache(run.path / ATTACKED, warn=progress)
    tried, spared = [], 0.0
    for entry in ready.entries:
        model = EightBit(run.model) if entry.norm == "linf" else run.model
        made = attack_images(
            model,
            untouched.images,
            untouched.truth,
            entry,
            seed=seed,
            progress=progress,
            batch=_BATCH,
            cache=cache,
            processes=processes,
        )
        tried.append(Tried(entry=entry, images=made.images, views=views_of(run.model, made.images)))
        spared += made.spared
        share = (untouched.right & ~tried[-1].fools(untouched)).mean()
        progress(f"{entry.name} done: {share:.1%} stay right")
    progress("figures")
    figures: Figures = {"epoch": float(run.epoch), **clean_figures(every, test.labels)}
    figures |= robust_accuracies(untouched, tried, ready.budgets.linf) | detection(
        (mixture, gaussian), untouched, tried
    )
    figures |= over_norms(untouched, tried)
    for one in tried:
        if one.entry.name == _GEOMETRY:
            figures |= geometry(untouched, one, mixture.means)
    return figures, spared


def _file(
    options: Options, run: Run, measured: Measured, code: str, seconds: float, masks: Masks | None, on: str
) -> str:
    data: dict[str, object] = {
        "set": run.recipe.data.set,
        "split": "test",
        "test_images": measured.test_images,
        "attacked_images": measured.attacked_images,
    }
    if measured.norms:
        data["norms"] = {ball.norm: ball.eps for ball in measured.norms}
    return result_text(
        options.out.stem,
        run,
        command=options.command(),
        seed=run.recipe.train.seed,
        commit=code,
        machine=on,
        seconds=round(seconds, 1),
        data=data | ({} if masks is None else {"masks": repr(masks)}) | ({"quick": True} if options.quick else {}),
        metrics=measured.metrics,
    )
