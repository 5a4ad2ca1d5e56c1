"""The arguments of `advsentry-train minmax`; torch is imported when it runs."""

import argparse
from pathlib import Path

__all__ = ["add_minmax"]


def add_minmax(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    parser.description = (
        "Makes one perturbation against several domains by the min-max algorithm: of each image against several "
        "networks (ensemble), of a group of images against one network (universal), of each image under several "
        "transformations (transforms). Prints the share of perturbations under which all domains fail (asr_all), each "
        "domain's, and the weights; beside equal weights, the mean of the learned ones held fixed, and your own."
    )
    parser.add_argument("kind", choices=("ensemble", "universal", "transforms"))
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a finished run directory")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="NAME.json; the result is called NAME")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets (else ADVSENTRY_DATA)")
    parser.add_argument("--images", type=int, default=200, metavar="N", help="test images (default: %(default)s)")
    parser.add_argument("--norm", choices=("linf", "l2", "l1", "l0"), default="linf")
    for name, words in (
        ("eps", "budget, images being in [0, 1]; of l0 values that change"),
        ("alpha", "1/alpha is the step of the perturbation"),
        ("beta", "1/beta is the step of the weights"),
        ("gamma", "how dearly weights are held equal; less than 2 beta"),
    ):
        parser.add_argument(f"--{name}", type=float, metavar="X", help=f"{words} (default: the paper's)")
    parser.add_argument("--steps", type=int, metavar="N", help="of the algorithm (default: the paper's, 50 or 20)")
    parser.add_argument("--weights", type=_numbers, default=(), metavar="W,W", help="of the domains, one more baseline")
    parser.add_argument("--group", type=int, default=5, metavar="K", help="images of a universal perturbation")
    parser.add_argument("--normalise", action="store_true", help="divide gradients by their L2 length")
    parser.add_argument(
        "--bundle",
        metavar="BUNDLE",
        action="append",
        default=[],
        help="also ask this bundle about the images: what it misreads, what it finds; may be given several times",
    )
    parser.add_argument("--keep", type=Path, metavar="FILE", help="also write images and weights of each, as .npz")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images and of the starts")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(command=_minmax)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected numbers such as 0.5,0.25,0.25, got {text!r}") from error


def _minmax(arguments: argparse.Namespace) -> int:
    from training.minmax.command import run_command

    return run_command(arguments)
