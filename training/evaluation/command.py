"""The `evaluate` command: attacks a run, asks its bundle, writes report.json and report.html."""

import argparse
import dataclasses
import json
import math
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from service.detection.bundle import find_bundle
from service.detection.engine import Engine
from service.errors import SetupError
from training.checkpoint import Run, code_version, load_run, write_atomically
from training.data.splits import Parts
from training.evaluation import blind_strength, series
from training.evaluation.adaptive_suite import FULL, QUICK, STANDARD, adaptive_suite
from training.evaluation.aimed import Known
from training.evaluation.assemble import assemble
from training.evaluation.attack_cache import ATTACKED, AttackCache
from training.evaluation.attacking import PATIENCE
from training.evaluation.availability import availability_suite
from training.evaluation.cost import BATCH, measure_cost, passes_of
from training.evaluation.entries import BUDGETED
from training.evaluation.evaluate import Evaluation, judge_run
from training.evaluation.held_out import HeldOut, choose_images
from training.evaluation.limited import limited_suite
from training.evaluation.pairing import as_exported, check_pair
from training.evaluation.progress import reporting
from training.evaluation.provenance import commit, libraries, machine
from training.evaluation.publish import publish
from training.evaluation.report import page
from training.evaluation.results import Provenance, Report
from training.evaluation.suite import Budgets, Fitting, NormName, SuiteEntry, blind_suite, budgets_for, fitting
from training.evaluation.suite_run import run_suite
from training.evaluation.summary import metrics, result_json, words
from training.evaluation.transfer import transfer_suite
from training.evaluation.twin import torch_twin
from training.evaluation.views import views_of
from training.folders import make_folder
from training.precision import deterministic
from training.processes import connected

__all__ = ["Options", "held_out", "run_command", "run_evaluation"]

_BLIND = {"quick": blind_strength.QUICK, "standard": blind_strength.STANDARD, "full": blind_strength.FULL}
_STRENGTHS = {"quick": QUICK, "standard": STANDARD, "full": FULL}
_SERIES = {"quick": series.QUICK, "standard": series.STANDARD, "full": series.FULL}
_EXEMPLARS = 1_000
"""Clean training images that adaptive attackers take exemplars and units from."""
_ALL_UP_TO = 2_000
"""Test images that are all attacked by default; of a larger set `_SOME` are."""
_SOME = 500


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


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `evaluate`; gives its exit status."""
    options = Options(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Options)})
    report = run_evaluation(options)
    if report is None:
        return 0
    page_path = options.out / "report.html"
    if arguments.json:
        sys.stdout.write(json.dumps({"report": str(page_path), "metrics": metrics(report)}) + "\n")
    else:
        sys.stdout.write(words(report) + f"report: {page_path}\n")
    return 0


def run_evaluation(options: Options) -> Report | None:
    """Evaluates and writes everything that the options ask for.

    Under torchrun every process calls it: they share the attacks, and all but the first one, which judges and writes,
    get None.

    Raises:
        BundleError: the bundle is damaged.
        SetupError: run or data are missing, do not belong to the bundle, or `--out` cannot be a folder.
    """
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    code = commit()  # now, while it is the code that runs
    with connected(None, patience=PATIENCE) as (device, processes):
        ready = processes.together(lambda: _ready(options, device))
        engine, run, parts, test, budgets = ready.engine, ready.run, ready.parts, ready.test, ready.budgets
        with reporting() as progress, deterministic(0):
            attacks = processes.together(lambda: _attacks(ready, options))
            ran = run_suite(
                engine,
                run.model,
                test,
                attacks.allowed.entries,
                seed=options.seed,
                progress=progress,
                denial=attacks.denial,
                series=attacks.series,
                cache=AttackCache(run.path / ATTACKED, warn=progress),
                processes=processes,
            )
    if not processes.is_first:
        return None
    with reporting() as progress, deterministic(0):
        evaluation = judge_run(
            engine,
            run.model,
            test,
            ran,
            budgets=budgets,
            seed=options.seed,
            progress=progress,
            fusion=np.ascontiguousarray(parts.fusion.images),
        )
    report = assemble(
        evaluation,
        engine.bundle,
        test,
        budgets=budgets,
        data_name=run.recipe.data.set,
        provenance=_provenance(
            options, code, started, time.monotonic() - began + evaluation.spared, machine(processes.shard.world)
        ),
        publishable=not options.is_quick,
        left_out=attacks.allowed.remarks,
        cost=measure_cost(
            engine.bundle,
            test.images[:BATCH],
            passes=passes_of(attacks.known.graph, test.images) if attacks.known else None,
        ),
    )
    _write(options, run, report, evaluation)
    return report


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ready:
    """What an evaluation is about."""

    engine: Engine
    run: Run
    parts: Parts
    test: HeldOut
    budgets: Budgets


def _ready(options: Options, device: torch.device) -> _Ready:
    engine = Engine.load(find_bundle(options.bundle))
    run = load_run(options.run, device=device)
    check_pair(run, engine.bundle)
    run = as_exported(run, engine.bundle)
    make_folder(options.out, "--out")
    parts = run.parts(options.data)
    test = held_out(run, parts, images=options.images, seed=options.seed)
    shape, threat = engine.bundle.manifest.input, engine.bundle.manifest.threat_model
    budgets = budgets_for(threat.norm, threat.eps, shape.height * shape.width * shape.channels, l2_eps=options.l2_eps)
    return _Ready(engine=engine, run=run, parts=parts, test=test, budgets=budgets)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Attacks:
    """What is run."""

    allowed: Fitting
    known: Known | None
    """What those who know the detectors have; None without them."""
    denial: tuple[SuiteEntry, ...]
    series: series.Series | None


def _attacks(ready: _Ready, options: Options) -> _Attacks:
    engine, run, budgets = ready.engine, ready.run, ready.budgets
    known = None if options.non_adaptive else _known(engine, run, ready.parts, options)
    adaptive, denial, beside = _adaptive(engine, run, known, budgets, options) if known else ((), (), None)
    return _Attacks(
        allowed=_allowed(run, ready.test, budgets, adaptive, options),
        known=known,
        denial=() if options.attacks else denial,
        series=None if options.attacks else beside,
    )


def _allowed(
    run: Run, held_out: HeldOut, budgets: Budgets, adaptive: Sequence[SuiteEntry], options: Options
) -> Fitting:
    """The attacks that were asked for and that the model allows."""
    strength = _BLIND[options.budget]
    suite = (*blind_suite(budgets, strength), *transfer_suite(run, options.transfer, budgets, strength), *adaptive)
    logits = views_of(run.model, held_out.images[held_out.chosen]).logits.topk(2, dim=1).values  # (N, 2)
    widest = float((logits[:, 0] - logits[:, 1]).max())
    allowed = fitting(suite, options.attacks, classes=len(run.class_names), widest=widest)
    if all(entry.norm not in BUDGETED for entry in allowed.entries):
        raise SetupError(
            f"--attacks: expected one within a Linf or L2 budget, by which the worst case is told, got "
            f"{', '.join(options.attacks)}; add pgd"
        )
    return allowed


def _known(engine: Engine, run: Run, parts: Parts, options: Options) -> Known:
    """What those who know the detectors have."""
    places = choose_images(parts.train.labels, _EXEMPLARS, options.seed)
    return Known.of(torch_twin(run, parts, engine), engine, parts.train.images[places])


def _adaptive(
    engine: Engine, run: Run, known: Known, budgets: Budgets, options: Options
) -> tuple[tuple[SuiteEntry, ...], tuple[SuiteEntry, ...], series.Series]:
    """The attacks that know the detectors, those on availability, and the series beside them."""
    manifest = engine.bundle.manifest
    strength = _STRENGTHS[options.budget]
    norm: NormName = "l2" if manifest.threat_model.norm == "l2" else "linf"
    return (
        (
            *adaptive_suite(known, budgets, norm, strength, alpha=manifest.default_alpha),
            *limited_suite(
                run,
                options.surrogate,
                known,
                budgets,
                norm,
                strength,
                data_root=options.data,
                seed=options.seed,
            ),
        ),
        availability_suite(
            known.graph,
            known.calibration,
            known.calibration_id,
            budgets,
            norm,
            steps=strength.steps,
            restarts=strength.restarts,
        ),
        series.attack_series(known, budgets, norm, _SERIES[options.budget]),
    )


def held_out(run: Run, parts: Parts, *, images: int | None, seed: int) -> HeldOut:
    """The test images of a run and which of them are attacked; None chooses how many by the size of the set.

    Raises:
        SetupError: there is no test image.
    """
    test = parts.test
    if not len(test):
        raise SetupError(f"{run.path}: expected test images, got none")
    count = images or (len(test) if len(test) <= _ALL_UP_TO else _SOME)
    return HeldOut(
        images=np.ascontiguousarray(test.images),
        labels=test.labels,
        chosen=choose_images(test.labels, count, seed),
        in_tracks=parts.train.tracks is not None,  # a published test split tells no tracks, yet has them
    )


def _provenance(options: Options, code: str, started: str, seconds: float, on: str) -> Provenance:
    return Provenance(
        command=options.command(),
        seed=options.seed,
        code_version=code_version(),
        commit=code,
        machine=on,
        started=started,
        seconds=round(seconds, 1),
        libraries=libraries(),
    )


def _write(options: Options, run: Run, report: Report, evaluation: Evaluation) -> None:
    write_atomically(options.out / "report.json", report.to_json())
    write_atomically(options.out / "report.html", page(report, evaluation))
    if options.result:
        make_folder(options.result.parent, "--result")
        write_atomically(options.result, result_json(options.result.stem, run, report))
    if options.publish:
        publish(find_bundle(options.bundle), report)
