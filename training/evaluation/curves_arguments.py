"""The `curves` command of `advsentry-train`: its arguments."""

import argparse
from pathlib import Path

from training.arguments import number
from training.evaluation.strength import FULL

__all__ = ["add_curves"]


def add_curves(parser: argparse.ArgumentParser) -> None:
    """Gives the parser its arguments."""
    parser.description = (
        "Attacks finished runs of one data set at growing Linf budgets and looks for signs that their gradients "
        "mislead attacks. Runs called NAME-sSEED are averaged over their seeds. Writes one file for docs/results."
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a finished run directory")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="NAME.json; the result is called NAME")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets (else ADVSENTRY_DATA)")
    parser.add_argument("--images", type=int, default=500, metavar="N", help="test images (default: %(default)s)")
    parser.add_argument("--eps", type=number, metavar="E", help="the budget, such as 8/255 (default: the runs')")
    parser.add_argument(
        "--restarts", type=int, default=FULL.restarts, metavar="N", help="starts of PGD (default: %(default)s)"
    )
    parser.add_argument(
        "--queries", type=int, default=FULL.queries, metavar="N", help="of Square (default: %(default)s)"
    )
    parser.add_argument(
        "--transfer",
        type=Path,
        metavar="RUN",
        action="append",
        default=[],
        help="also attack by way of this finished run, such as a twin without sweeps; may be given several times",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images and of the attacks")
    parser.add_argument("--quick", action="store_true", help="weak attacks for a first look; the file says so")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(command=_curves)


def _curves(arguments: argparse.Namespace) -> int:
    from training.evaluation.curves_command import run_command

    return run_command(arguments)
