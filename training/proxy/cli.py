"""The command `proxy` and its three: arguments in, exit status out. Imports no torch until one of them runs."""

import argparse
from fractions import Fraction
from pathlib import Path

__all__ = ["add_proxy"]


def add_proxy(parser: argparse.ArgumentParser) -> None:
    """Adds the three commands."""
    parser.description = "Images that a generator made, to train on beside the real ones (section [proxy] of a recipe)."
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    _add_generate(commands.add_parser("generate", help="learn a recipe's training images and draw more of their kind"))
    _add_arc(commands.add_parser("arc", help="rank sets of generated images by a robust discriminator"))
    _add_select(
        commands.add_parser("select", help="keep the generated images that a robust discriminator finds most real")
    )


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Learns from the recipe's training part alone and writes an .npz file of images and labels, equally many of "
        "each class, that remembers what it was made from."
    )
    parser.add_argument("generator", metavar="GENERATOR", help="diffusion, pca-gaussian or pixel-gaussian (a bad one)")
    _add_recipe(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the .npz file")
    parser.add_argument("--images", metavar="N", type=int, default=10_000, help="to draw (default: %(default)s)")
    parser.add_argument("--unlabelled", action="store_true", help="leave the labels out, for proxy.labeller to give")
    parser.add_argument("--seed", type=int, default=0, help="of weights and draws")
    learning = parser.add_argument_group("diffusion")
    learning.add_argument("--steps", type=int, help="of training (default: 6000)")
    learning.add_argument("--batch-size", type=int, help="images a step (default: 64)")
    learning.add_argument("--width", type=int, help="channels of the first stage (default: 16)")
    learning.add_argument("--learning-rate", type=float, help="the peak (default: 2e-3)")
    learning.add_argument("--sampler", choices=("ddim", "ddpm"), help="how images are drawn (default: ddim)")
    learning.add_argument("--sampling-steps", type=int, help="passes of the network for an image (default: 25)")
    learning.add_argument("--weights", type=Path, metavar="FILE", help="keeps what is learned; the same call goes on")
    parser.set_defaults(command=_generate, parser=parser)


def _add_arc(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Trains robust discriminators between the recipe's training images and each set, and prints the area under "
        "their accuracy over eps: lower is the better proxy. The line `real` holds real images against real ones."
    )
    _add_recipe(parser)
    parser.add_argument("sets", metavar="FILE", nargs="+", type=Path, help="an .npz file of generated images")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="NAME.json for docs/results; the result is called NAME"
    )
    parser.add_argument("--images", metavar="N", type=int, default=2000, help="of each kind (default: %(default)s)")
    parser.add_argument(
        "--eps", type=_numbers, metavar="E,E", help="sizes of attacks from 0 (default: quarters of the recipe's)"
    )
    _add_discriminator(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(command=_arc, parser=parser)


def _add_select(parser: argparse.ArgumentParser) -> None:
    parser.description = "Writes the share of each class that looks most real to a discriminator that is attacked."
    _add_recipe(parser)
    parser.add_argument("set", metavar="FILE", type=Path, help="an .npz file of generated images")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the .npz file of what is kept")
    parser.add_argument("--keep", metavar="SHARE", type=float, default=0.5, help="above 0, at most 1 (default: 0.5)")
    parser.add_argument("--eps", type=_number, metavar="E", help="size of the attack (default: half of the recipe's)")
    _add_discriminator(parser)
    parser.set_defaults(command=_select, parser=parser)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file or the name of one: its data, network and attack")
    parser.add_argument("--data", metavar="DIR", type=Path, help="folder of the data sets (else ADVSENTRY_DATA)")
    parser.set_defaults(overrides=[])


def _add_discriminator(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=int, default=30, help="of each discriminator (default: %(default)s)")
    parser.add_argument("--pgd-steps", type=int, default=5, help="of its training attack (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of choices, weights and attacks")


def _number(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"expected a number or a fraction such as 8/255, got {text!r}") from error


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(_number(part.strip()) for part in text.split(","))


def _generate(arguments: argparse.Namespace) -> int:
    from training.proxy.generating import run_command

    return run_command(arguments)


def _arc(arguments: argparse.Namespace) -> int:
    from training.proxy.ranking import run_command

    # argparse takes key=value behind the files for files.
    mistaken = [path for path in arguments.sets if "=" in str(path) and not path.exists()]
    arguments.sets = [path for path in arguments.sets if path not in mistaken]
    arguments.overrides = [*arguments.overrides, *map(str, mistaken)]
    return run_command(arguments)


def _select(arguments: argparse.Namespace) -> int:
    from training.proxy.choosing import run_command

    return run_command(arguments)
