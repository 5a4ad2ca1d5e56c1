"""The arguments of `retrieve`."""

import argparse
from pathlib import Path

from training.arguments import number

__all__ = ["add_retrieve"]


def add_retrieve(parser: argparse.ArgumentParser) -> None:
    """Fills the command's parser."""
    parser.description = (
        "Searches by the embeddings of finished runs, benign and with attacked queries, among the classes that the "
        "recipe's data.classes kept from training (else in the test part), and writes R@1, R@2, mAP@R and NMI as one "
        "file for docs/results. Runs called NAME-sSEED also get their mean and deviation."
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a finished run directory")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="NAME.json; the result is called NAME")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets (else ADVSENTRY_DATA)")
    parser.add_argument(
        "--queries", type=int, default=500, metavar="N", help="at most so many are attacked (default: %(default)s)"
    )
    parser.add_argument(
        "--eps", type=number, metavar="E", help="budget of the attack, such as 8/255 (default: the runs')"
    )
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="of PGD (default: %(default)s)")
    parser.add_argument("--restarts", type=int, default=2, metavar="N", help="starts of PGD (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of queries, the attacks and k-means")
    parser.add_argument("--quick", action="store_true", help="few steps for a first look; the file says so")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(command=_retrieve)


def _retrieve(arguments: argparse.Namespace) -> int:
    from training.retrieval.command import run_command

    return run_command(arguments)
