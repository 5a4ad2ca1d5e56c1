"""`advsentry tune`: its arguments, and what was measured as a table, as JSON, or as a file of settings."""

import argparse
import dataclasses
import json
import math
from pathlib import Path

from service.detection.bundle import find_bundle
from service.errors import SetupError
from service.report import table
from service.serve import refuse_two_wheels
from service.settings import Settings
from service.tune import Tuned, tune

__all__ = ["add_tune_arguments", "tune_text"]

LONGEST_S = 3600.0


def add_tune_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    defaults = Settings()
    parser.description = (
        "Times a bundle's graph on this machine with several numbers of threads, sizes of a batch and processes, and "
        "says which settings serve the most images. Run it where nothing else runs."
    )
    parser.add_argument("--bundle", default=defaults.bundle, help=f"directory or shipped name ({defaults.bundle})")
    parser.add_argument(
        "--device", choices=("cpu", "cuda", "auto"), default=defaults.device, help="what runs the graph (cpu)"
    )
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="for all measurements (10)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the best settings as a file for `serve`")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def tune_text(options: argparse.Namespace) -> str:
    """Measures, writes the file that was asked for, and gives what is to be printed.

    Raises:
        BundleError: the bundle cannot be used.
        SetupError: an option is wrong, both onnxruntime packages are installed, the device does not come up, or the
            file cannot be written.
    """
    refuse_two_wheels()
    if not 0 < options.seconds <= LONGEST_S:  # NaN too
        raise SetupError(f"--seconds: expected a number above 0, at most {LONGEST_S:g}, got {options.seconds:g}")
    if options.write is not None:
        _check_new(options.write)
    tuned = tune(find_bundle(options.bundle), device=options.device, seconds=options.seconds)
    if options.write is not None:
        _write(options.write, _toml(tuned, options))
    return json.dumps(_json(tuned)) if options.json else _table(tuned)


def _best(tuned: Tuned) -> dict[str, int]:
    """By name of the setting; for one process there is no need of a supervisor."""
    workers = tuned.workers if tuned.workers > 1 else 0
    return {"threads": tuned.threads, "max_batch": tuned.max_batch, "workers": workers}


def _json(tuned: Tuned) -> dict[str, object]:
    points = [{**dataclasses.asdict(point), "images_per_s": point.images_per_s} for point in tuned.points]
    return {**dataclasses.asdict(tuned), "points": points}


def _table(tuned: Tuned) -> str:
    """Points, the best of each column of threads marked, then crowds and the settings."""
    rows = [("threads", "batch", "ms a batch", "images/s", "")]
    for point in tuned.points:
        is_best = (point.threads, point.batch) == (tuned.crowds[0].threads, tuned.max_batch)
        cells = (f"{point.threads or '-'}", f"{point.batch}", _number(point.batch_ms), _number(point.images_per_s))
        rows.append((*cells, "<- one process" if is_best else ""))
    crowds = [("workers", "threads of each", "images/s together")]
    crowds += [(f"{one.workers}", f"{one.threads or '-'}", _number(one.images_per_s)) for one in tuned.crowds]
    lines = [
        f"{tuned.bundle} on {tuned.provider}, {tuned.processors} processor(s); handing a batch to the graph's thread "
        f"takes {tuned.hand_over_ms:.3f} ms of each",
        table(rows),
        "",
        table(crowds),
        "",
        f"best: threads {tuned.threads}, max_batch {tuned.max_batch}, workers {tuned.workers} (the least that reach "
        "95 % of the highest rate)",
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    """Three digits, without an exponent.

    >>> [_number(value) for value in (0.01234, 12.34, 12345.6)]
    ['0.0123', '12.3', '12346']
    """
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def _toml(tuned: Tuned, options: argparse.Namespace) -> str:
    rate = max(crowd.images_per_s for crowd in tuned.crowds)
    return "".join(
        [
            f"# Measured by `advsentry tune` with the bundle {tuned.bundle} on {tuned.provider}, "
            f"{tuned.processors} processor(s): about {rate:.0f} images/s of the graph.\n",
            f"bundle = {json.dumps(options.bundle, ensure_ascii=False)}\n",
            f'device = "{options.device}"\n',
            *(f"{name} = {value}\n" for name, value in _best(tuned).items()),
        ]
    )


def _check_new(path: Path) -> None:
    """Before the measurement, not after."""
    if path.exists():
        raise SetupError(f"--write: {path} exists already; choose another name, or remove it")
    if not path.parent.is_dir():
        raise SetupError(f"--write: {path.parent}: expected a folder that exists")


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SetupError(f"--write: {path}: cannot be written: {error.strerror}") from error
