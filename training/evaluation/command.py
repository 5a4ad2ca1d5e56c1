"""The `evaluate` command: attacks a run, asks its bundle, writes report.json and report.html."""

import argparse
import dataclasses
import json
import sys
import time
from datetime import UTC, datetime

import numpy as np

from service.detection.bundle import find_bundle
from training.checkpoint import Run, code_version, write_atomically
from training.evaluation.assemble import assemble
from training.evaluation.attack_cache import ATTACKED, AttackCache
from training.evaluation.attacking import PATIENCE
from training.evaluation.cost import BATCH, measure_cost, passes_of
from training.evaluation.evaluate import Evaluation, judge_run
from training.evaluation.options import Options
from training.evaluation.preparing import choose_attacks, prepare
from training.evaluation.progress import reporting
from training.evaluation.provenance import commit, libraries, machine
from training.evaluation.publish import publish
from training.evaluation.report import page
from training.evaluation.results import Provenance, Report
from training.evaluation.suite_run import run_suite
from training.evaluation.summary import metrics, result_json, words
from training.folders import make_folder
from training.precision import deterministic
from training.processes import connected

__all__ = ["run_command", "run_evaluation"]


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
        ready = processes.together(lambda: prepare(options, device))
        engine, run, parts, test, budgets = ready.engine, ready.run, ready.parts, ready.test, ready.budgets
        with reporting() as progress, deterministic(0):
            attacks = processes.together(lambda: choose_attacks(ready, options))
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
