"""`make reliability`: runs the sheet and prints what was asked beside what was measured."""

import argparse
import dataclasses
import logging
import os
import sys
import time
from pathlib import Path

from deploy.reliability.check import Check, Judged, NotRun, Verdict
from deploy.reliability.heavy import write_heavy
from deploy.reliability.result import Row, write_rows
from deploy.reliability.rig import Rig, Size
from deploy.reliability.sheet import SHEET
from service.detection.bundle import find_bundle
from service.errors import AdvsentryError, SetupError

log = logging.getLogger(__name__)


def main() -> int:
    """Runs the sheet; the exit status is 1 when a check fails."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    started, cores = time.monotonic(), os.sched_getaffinity(0)
    try:
        checks = _chosen(options.only)
        rig = _rig(options)
        rows = [_row(check, rig) for check in checks]
        os.sched_setaffinity(0, cores)  # for the result to tell of the machine, not of the clients' core
        if options.result is not None:
            write_rows(options.result, rows, rig, seconds=time.monotonic() - started)
    except AdvsentryError as error:
        print(f"reliability: error: {error}", file=sys.stderr)
        return 1
    return int(any(row.judged.verdict is Verdict.FAIL for row in rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.reliability", description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=list(Size), type=Size, default=Size.QUICK, help="how much is done (quick)")
    parser.add_argument("--only", metavar="R-1,R-2", help="these checks; all when left out")
    parser.add_argument("--bundle", default="digits", help="a directory or a shipped name (digits)")
    parser.add_argument("--base", default="HEAD~1", help="the revision that R-25 measures against (HEAD~1)")
    parser.add_argument(
        "--result", type=Path, help="a file for docs/results; what it holds of checks that are not run now is kept"
    )
    return parser


def _chosen(only: str | None) -> list[Check]:
    known = {check.number: check for check in SHEET}
    if only is None:
        return list(SHEET)
    names = only.split(",")
    if unknown := [name for name in names if name not in known]:
        raise SetupError(f"--only: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    return [known[name] for name in names]


def _rig(options: argparse.Namespace) -> Rig:
    """The clients get the last core for themselves, the servers the others."""
    bundle = find_bundle(options.bundle)
    rig = Rig(size=options.size, bundle=bundle, base=options.base)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[-1]})
        rig = dataclasses.replace(rig, cores=frozenset(cores[:-1]))
    return dataclasses.replace(rig, heavy=write_heavy(rig.folder / "heavy", bundle))


def _row(check: Check, rig: Rig) -> Row:
    started = time.monotonic()
    judged = run_check(check, rig)
    row = Row.of(check, judged, size=rig.size, seconds=time.monotonic() - started)
    print("\n".join(row.lines()), flush=True)
    return row


def run_check(check: Check, rig: Rig) -> Judged:
    """A check's verdict; an error of whatever kind fails it."""
    try:
        return check.judged(check.run(rig))
    except NotRun as error:
        return Judged(verdict=Verdict.NOT_RUN, why=str(error))
    except Exception as error:
        log.exception("%s ended in an error", check.number)
        return Judged(verdict=Verdict.FAIL, why=f"{type(error).__name__}: {error}"[:300])


if __name__ == "__main__":
    sys.exit(main())
