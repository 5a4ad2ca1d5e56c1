"""`make fuzz`: fuzzes the readers of requests and the decoder of images."""

import argparse
import sys
from pathlib import Path

from deploy.fuzz.campaign import fuzz, is_installed, keep
from deploy.fuzz.targets import TARGETS

WORK = Path("build/fuzz")


def main() -> int:
    """Runs each target; the exit status is 1 when a defect is found."""
    parser = argparse.ArgumentParser(prog="python -m deploy.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="once or more; all when left out")
    parser.add_argument("--keep", action="store_true", help="add to tests/fuzz/corpus what reached new code")
    options = parser.parse_args()
    if not is_installed():
        print(
            "fuzz: error: atheris is not installed; it is made for Linux and comes with the extra `dev`",
            file=sys.stderr,
        )
        return 1
    names = options.target or list(TARGETS)
    crashes = 0
    for name in names:
        found = fuzz(name, WORK, options.seconds)
        crashes += len(found.crashes)
        print(f"{name}: {found.inputs} inputs, {len(found.crashes)} defects", flush=True)
        for path in found.crashes:
            print(f"  {path}\n{found.text}")
    if options.keep:
        keep(names, WORK)
    return int(crashes > 0)


if __name__ == "__main__":
    sys.exit(main())
