"""The arguments of `advsentry-train history`; torch is imported when it runs."""

import argparse
from pathlib import Path

__all__ = ["add_history"]


def add_history(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    parser.description = (
        "Calibrates the query history of a bundle on benign streams, which are made of the images that the bundle was "
        "calibrated on, and puts the calibration into the bundle. With --check it changes nothing, and measures false "
        "positives on streams of test images."
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle directory, or the name of a shipped bundle")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets (else ADVSENTRY_DATA)")
    parser.add_argument(
        "--level",
        type=float,
        metavar="P",
        help="smallest level that flags can be raised at, or with --check the level (default: that of the bundle's "
        "recipe, 0.005 where it has none)",
    )
    parser.add_argument(
        "--streams",
        type=Path,
        metavar="FOLDER",
        help="benign streams of your own beside them: a folder or zip file each, images in the order of their names",
    )
    parser.add_argument("--only-streams", action="store_true", help="no made streams, only those of --streams")
    parser.add_argument("--seed", type=int, default=0, help="of the streams that are made")
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument("--remove", action="store_true", help="take the calibration out of the bundle")
    doing.add_argument("--check", action="store_true", help="measure false positives instead")
    parser.add_argument(
        "--result", type=Path, metavar="FILE", help="with --check: also write NAME.json for docs/results"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(command=_history)


def _history(arguments: argparse.Namespace) -> int:
    from training.history.command import run_command

    return run_command(arguments)
