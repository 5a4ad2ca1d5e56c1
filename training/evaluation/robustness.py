"""The `robustness` command: what a finished run withstands, measured on its torch model, without a bundle."""

import argparse
import dataclasses
import json
import sys
import time
from dataclasses import dataclass

from training.attacks.ball import Ball
from training.checkpoint import Run, write_atomically
from training.evaluation.attacking import PATIENCE
from training.evaluation.looking import looks
from training.evaluation.norms import NAMED, parse_balls
from training.evaluation.progress import reporting
from training.evaluation.provenance import commit, machine
from training.evaluation.result_file import result_text
from training.evaluation.robustness_options import Options
from training.evaluation.withstanding import attack_run, prepare
from training.launch import is_first
from training.masks import Masks
from training.precision import deterministic
from training.processes import connected

__all__ = ["Measured", "measure_robustness", "run_command"]


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
        ready = processes.together(lambda: prepare(options, device))
        run, test, masks = ready.run, ready.parts.test, ready.masks
        with reporting() as progress, deterministic(0):
            figures, spared = attack_run(ready, seed=options.seed, progress=progress, processes=processes)
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
