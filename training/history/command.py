"""The `history` command: puts a calibration of the query history into a bundle, or measures the one that is there."""

import argparse
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.detection.bundle import HISTORY, find_bundle, load_bundle
from service.detection.engine import Engine
from service.errors import SetupError
from service.history.calibration import Calibration
from training.checkpoint import write_atomically
from training.checks import at_least, require
from training.config import recipe_from_dict
from training.evaluation.provenance import commit, machine
from training.evaluation.result_file import result_text
from training.folders import make_folder
from training.history.checking import Check, false_positives, figures
from training.history.folders import own_streams
from training.history.making import made_history, own_history
from training.history.placing import place
from training.history.pools import pools_of
from training.history.traffic import Stream
from training.sections import ExportConfig
from training.shipped import aligned

__all__ = ["Options", "run_command"]

STREAMS = 500
"""Of each kind, that are checked; a search-like one is flagged for most of its length, so that queries say less."""
_HEADER = ("benign streams", "queries", "flagged", "of streams", "of clients")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for."""

    bundle: str
    data: Path | None = None
    level: float | None = None
    """None: that of the bundle's recipe."""
    streams: Path | None = None
    only_streams: bool = False
    seed: int = 0
    remove: bool = False
    check: bool = False
    result: Path | None = None

    def __post_init__(self) -> None:
        at_least(0, "--seed", self.seed)
        if self.level is not None:
            require(1e-4 <= self.level <= 0.1, "--level", "a number from 0.0001 to 0.1", self.level)
        require(not self.only_streams or self.streams is not None, "--only-streams", "--streams beside it", "none")
        if self.result is not None:
            require(self.check, "--result", "--check beside it", "none")
            require(self.result.suffix == ".json", "--result", "a file NAME.json", str(self.result))

    def command(self) -> str:
        """The command line that gives the same figures."""
        words = ["advsentry-train", "history", self.bundle, *(["--check"] if self.check else [])]
        words += [] if self.data is None else ["--data", "DATA"]  # where it lies is this machine's affair
        words += [] if self.level is None else ["--level", f"{self.level:g}"]
        words += [] if self.streams is None else ["--streams", "STREAMS"]
        words += ["--only-streams"] if self.only_streams else []
        return shlex.join([*words, "--seed", str(self.seed)])


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `history`; gives its exit status."""
    options = Options(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Options)})
    path = find_bundle(options.bundle)
    if options.remove:
        place(path, None)
        sys.stderr.write(f"bundle {path}: without {HISTORY}\n")
        return 0
    began, code = time.monotonic(), commit()  # now, while it is the code that runs
    engine = Engine(load_bundle(path, reads_history=options.check))  # one that cannot be read is replaced, too
    own = [] if options.streams is None else own_streams(options.streams, engine)
    level = options.level or _level_of(engine)
    if options.check:
        metrics = _checked(engine, own, options, level)
        if options.result is not None:
            make_folder(options.result.parent, "--result")
            text = _result(options, engine, metrics, level, code=code, seconds=time.monotonic() - began)
            write_atomically(options.result, text)
        sys.stdout.write((json.dumps(metrics) if arguments.json else _words(metrics)) + "\n")
        return 0
    calibration = _calibrated(engine, own, options, level)
    place(path, calibration)
    sys.stderr.write(
        f"bundle {path}: {HISTORY} of {len(calibration.to_bytes())} bytes, {calibration.streams} streams of a kind "
        f"ranked, smallest level {1 / (calibration.streams + 1):.3g}, in {time.monotonic() - began:.0f} s\n"
    )
    return 0


def _level_of(engine: Engine) -> float:
    """That of the bundle's recipe."""
    training = engine.bundle.manifest.training
    level = recipe_from_dict(training).export.history_level if training else 0.0
    return level or ExportConfig().history_level


def _calibrated(engine: Engine, own: Sequence[Stream], options: Options, level: float) -> Calibration:
    if options.only_streams:
        return own_history(engine, own, level=level, seed=options.seed)
    return made_history(engine, pools_of(engine, options.data), level=level, seed=options.seed, own=own)


def _checked(engine: Engine, own: Sequence[Stream], options: Options, level: float) -> Mapping[str, float]:
    calibration = engine.bundle.history
    if calibration is None:
        raise SetupError(
            f"{engine.bundle.manifest.name}: expected a bundle with {HISTORY}, got one without; the same command "
            "without --check makes it"
        )
    pools = None if options.only_streams else pools_of(engine, options.data)
    check = Check(engine=engine, calibration=calibration, level=level, streams=STREAMS, seed=options.seed)
    return figures(false_positives(check, pools, own)) | {"streams_ranked": calibration.streams}


def _result(
    options: Options, engine: Engine, metrics: Mapping[str, float], level: float, *, code: str, seconds: float
) -> str:
    assert options.result is not None
    training = engine.bundle.manifest.training
    return result_text(
        options.result.stem,
        None,
        command=options.command(),
        seed=options.seed,
        commit=code,
        machine=machine(),
        seconds=round(seconds, 1),
        data={
            "set": training["data"]["set"] if training else "streams",
            "split": "test",
            "bundle": engine.bundle.manifest.name,
        },
        metrics=metrics,
        recipe={"level": level, "streams_of_a_kind": STREAMS},
    )


def _words(metrics: Mapping[str, float]) -> str:
    kinds = [name.removesuffix("_queries") for name in metrics if name.endswith("_queries")]
    shares = ("false_positive_rate", "flagged_streams", "flagged_clients")
    rows = [
        (kind, f"{metrics[f'{kind}_queries']:.0f}", *(f"{metrics[f'{kind}_{share}']:.3%}" for share in shares))
        for kind in kinds
    ]
    return aligned([_HEADER, *rows])
