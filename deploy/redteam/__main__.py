"""Query attacks on a bundle behind its query history.

    python -m deploy.redteam --bundle gtsrb --data DATA --result docs/results/redteam-gtsrb.json
    python -m deploy.redteam --bundle gtsrb --data DATA --target HOST:PORT --tokens FILE --only plain_square_annotate

Without --target the engine, the history and the rules of the server are asked in this process, under a clock of the
attackers', so that an hour of theirs takes seconds. With it, attacks of one mode go to a server that runs, whose own
settings decide, and --only says which. What is finished is kept in --folder: the same command goes on where it was
stopped.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.redteam.bench import BUDGET, IMAGES, Bench
from deploy.redteam.cases import Case, Server
from deploy.redteam.figures import Row, headline, rows, table
from deploy.redteam.kept import Kept, digest_of
from deploy.redteam.running import run
from deploy.result_file import write_result
from service.errors import AdvsentryError
from training.evaluation.progress import reporting

__all__ = ["main"]

UNFINISHED = 3
"""Exit status when time was up."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the attacks and prints their figures; gives the exit status."""
    options = _options(arguments)
    try:
        with reporting() as progress, contextlib.ExitStack() as stack:
            bench = Bench(options, stack)
            found = _measured(bench, options, progress)
        cells = [row for rows_of_case, _ in found.values() for row in rows_of_case]
        print(table(cells), flush=True)
        if len(found) < len(bench.cases):
            print(f"{len(found)} of {len(bench.cases)} cases; the same command goes on", file=sys.stderr)
            return UNFINISHED
        metrics = headline(cells, options.budget)
        print("\n".join(f"{name:<40} {value:.4g}" for name, value in metrics.items()))
        if options.result:
            write_result(
                options.result,
                name=options.result.stem,
                module="deploy.redteam",
                recipe=bench.settings,
                seed=options.seed,
                seconds=sum(seconds for _, seconds in found.values()),
                data=bench.data(options),
                metrics=metrics,
                further={"cells": cells},
            )
    except AdvsentryError as error:
        print(f"redteam: error: {error}", file=sys.stderr)
        return 1
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.redteam", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bundle", default="gtsrb", help="a directory or a shipped name (gtsrb)")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("ADVSENTRY_DATA"), help="folder of the data set (or ADVSENTRY_DATA)"
    )
    parser.add_argument("--budget", type=int, default=BUDGET, help=f"queries of an attack ({BUDGET})")
    parser.add_argument("--images", type=int, default=IMAGES, help=f"test images that are attacked ({IMAGES})")
    parser.add_argument("--eps", type=int, help="the larger budget in levels of 1/255 (twice the bundle's)")
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="cases whose names begin with one of these")
    parser.add_argument("--level", type=float, default=Server.level, help=f"of the history ({Server.level})")
    parser.add_argument("--window-s", type=float, default=Server.window_s, help=f"({Server.window_s:g})")
    parser.add_argument("--flags", type=int, default=Server.flags, help=f"that close an account ({Server.flags})")
    parser.add_argument(
        "--late-flags", type=int, default=Server.late_flags, help=f"more at most, silently ({Server.late_flags})"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (0)")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="after which it stops, to go on another time"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("build/redteam"), help="where finished cases are kept (build/redteam)"
    )
    parser.add_argument("--target", default="", metavar="HOST:PORT", help="a server that runs")
    parser.add_argument(
        "--tokens", type=Path, metavar="FILE", help="a token a line, one for each account of each image"
    )
    parser.add_argument("--ca", type=Path, metavar="FILE", help="use TLS; PEM file of the target's roots")
    parser.add_argument("--result", type=Path, metavar="FILE", help="a file for docs/results")
    return parser.parse_args(arguments)


def _measured(
    bench: Bench, options: argparse.Namespace, progress: Callable[[str], None]
) -> dict[str, tuple[Sequence[Row], float]]:
    """Rows of each case that is finished, and the seconds that they took."""
    until = time.monotonic() + 60 * options.minutes
    digest = digest_of(bench.engine.bundle, bench.calibration, {**bench.settings, "seed": options.seed})
    kept = None if bench.clients else Kept(folder=options.folder, digest=digest)
    found = dict[str, tuple[Sequence[Row], float]]()
    for case in bench.cases:
        made = None if kept is None else kept.find(case.name)
        if made is None:
            made = _run(case, bench, options.seed, until, progress)
            if made is not None and kept is not None:
                kept.keep(case.name, *made)
        if made is not None:
            found[case.name] = made
    return found


def _run(
    case: Case, bench: Bench, seed: int, until: float, progress: Callable[[str], None]
) -> tuple[Sequence[Row], float] | None:
    """A case's rows and its seconds; None where time is up before it is finished."""
    if time.monotonic() >= until:
        return None
    began = time.monotonic()
    outcomes = run(
        case.attack,
        bench.victims.goals(max(case.eps)),
        bench.backend(case, seed),
        case.budget,
        eps=case.eps,
        seed=seed,
        until=until,
        progress=lambda living, asked: progress(f"{case.name}: {living} attacks under way, {asked:,} queries"),
    )
    if outcomes is None:
        return None
    return rows(case, outcomes), time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
