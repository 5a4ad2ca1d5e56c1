"""The commands of `advsentry-train`: arguments in, exit status out.

What a command needs is imported when it runs: torch takes seconds, which help and wrong usage should not cost.
"""

import argparse
from pathlib import Path

from training.arguments import number
from training.evaluation.curves_arguments import add_curves
from training.evaluation.strength import FULL
from training.history.arguments import add_history
from training.minmax.arguments import add_minmax
from training.proxy.cli import add_proxy
from training.retrieval.arguments import add_retrieve

__all__ = ["add_commands"]


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds every command to the command line. A new one: a parser and a function here, one line below."""
    _add_recipes(commands.add_parser("recipes", help="list the recipes that come along, or show one"))
    _add_fit(commands.add_parser("fit", help="train a recipe into a run directory; the same command again resumes"))
    _add_export(commands.add_parser("export", help="fit detectors, calibrate and write the bundle of a run"))
    add_history(
        commands.add_parser("history", help="calibrate a bundle's query history on benign streams, or check it")
    )
    _add_evaluate(commands.add_parser("evaluate", help="attack a run and report what its bundle sees"))
    _add_compare(commands.add_parser("compare", help="hold the reports of two bundles against each other"))
    _add_fusions(commands.add_parser("fusions", help="compare ways to fuse a run's detectors, to choose one by"))
    _add_robustness(commands.add_parser("robustness", help="measure what a run withstands, without a bundle"))
    add_curves(commands.add_parser("curves", help="attack runs at growing budgets, and ask whether gradients mislead"))
    add_retrieve(commands.add_parser("retrieve", help="search by a run's embedding, with attacked queries too"))
    _add_analyse(commands.add_parser("analyse", help="show what networks look at, side by side"))
    add_minmax(commands.add_parser("minmax", help="attack several networks, images or transformations at once"))
    add_proxy(commands.add_parser("proxy", help="generate images to train on, rank generators, choose images"))


def _add_recipes(parser: argparse.ArgumentParser) -> None:
    parser.description = "Lists the recipes that come along, or prints the file of one."
    parser.add_argument("name", metavar="NAME", nargs="?", help="print this one's file")
    parser.add_argument("--json", action="store_true", help="the list as JSON")
    parser.set_defaults(command=_recipes)


def _add_fit(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a recipe into a run directory. Ctrl-C finishes the step under way, saves and exits with status 1; the "
        "same command again resumes and ends in the same weights."
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file, or the name of a recipe that comes along")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the run directory")
    parser.add_argument("--data", metavar="DIR", type=Path, help="folder of the data (default: ADVSENTRY_DATA)")
    parser.add_argument("--download", action="store_true", help="first fetch a public set (mnist, cifar10) into --data")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="such as train.epochs=5")
    parser.set_defaults(command=_fit, parser=parser)  # its own usage, where overrides are wrong


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="directory that `fit` wrote")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="BUNDLE", help="the bundle; its name is the folder's"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets (else ADVSENTRY_DATA)")
    parser.add_argument("--force", action="store_true", help="replace a bundle that stands there already")
    parser.add_argument(
        "--int8",
        action="store_true",
        help="quantise the large convolutions: faster on processors with VNNI; a bundle of its own, with its own "
        "calibration",
    )
    parser.add_argument(
        "--fp16",
        action="store_true",
        help="run the networks' trunks in float16, for GPUs; a bundle of its own, with its own calibration",
    )
    parser.add_argument(
        "--reduce-range",
        action="store_true",
        help="with --int8: weights of 7 bits, for x86-64 processors without VNNI, whose 8-bit sums saturate",
    )
    parser.add_argument(
        "--like",
        metavar="BUNDLE",
        help="an earlier bundle of this run: the same [export] section and learned detectors, which are not trained "
        "again",
    )
    parser.add_argument("overrides", metavar="export.key=value", nargs="*", help="instead of the recipe's value")
    parser.set_defaults(command=_export, parser=parser)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Attacks the run's model, asks the bundle about the attacked images, and writes report.json and a "
        "self-contained report.html."
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle directory, or the name of a shipped bundle")
    parser.add_argument("--run", type=Path, required=True, help="the run directory that the bundle was exported from")
    parser.add_argument("--out", type=Path, required=True, help="folder of report.json and report.html")
    parser.add_argument("--data", type=Path, help="folder of the data set (or ADVSENTRY_DATA)")
    parser.add_argument("--images", type=int, metavar="N", help="images to attack (default: all up to 2000, else 500)")
    parser.add_argument("--attacks", type=_names, default=(), metavar="A,B", help="some of the suite's attacks")
    parser.add_argument("--l2-eps", type=float, metavar="E", help="budget of the L2 attacks, images being in [0, 1]")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images, the attacks and the intervals")
    parser.add_argument(
        "--budget",
        choices=("quick", "standard", "full"),
        default="standard",
        help="how much the attacks may compute; quick is for a first look and never published (default: %(default)s)",
    )
    parser.add_argument(
        "--non-adaptive", action="store_true", help="leave out the attacks that know the detectors and the calibration"
    )
    parser.add_argument(
        "--transfer",
        type=Path,
        metavar="RUN",
        action="append",
        default=[],
        help="also try attacks made on this finished run of the same data; may be given several times",
    )
    parser.add_argument(
        "--surrogate",
        type=Path,
        metavar="RUN",
        action="append",
        default=[],
        help="also try attacks of somebody who made a bundle of this finished run himself; may be given several times",
    )
    parser.add_argument("--publish", action="store_true", help="put the report and its headline into the bundle")
    parser.add_argument("--result", type=Path, metavar="FILE", help="also write the small file for docs/results")
    parser.add_argument("--json", action="store_true", help="print the headline figures as JSON")
    parser.set_defaults(command=_evaluate)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.description = "Holds what `evaluate` found of two bundles against each other; says where that is not fair."
    for name in ("first", "second"):
        parser.add_argument(name, metavar="REPORT", help="a bundle, a folder that `evaluate` wrote, or a report.json")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write compare.html there")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(command=_compare)


def _add_fusions(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Attacks images of the run's selection part, briefly, and prints what every kind of fusion finds, what each "
        "detector finds alone, and what is lost without it. To choose export.fusion and export.detectors by, never to "
        "quote. No calibration or test image is attacked."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="directory that `fit` wrote")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets (else ADVSENTRY_DATA)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the figures go (default: RUN/fusions.json)")
    parser.add_argument(
        "--images", type=int, default=200, metavar="N", help="at most so many are attacked (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images and of the attacks")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("overrides", metavar="export.key=value", nargs="*", help="such as other export.detectors")
    parser.set_defaults(command=_fusions, parser=parser)


def _add_robustness(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Attacks the run's model on its test part, rounds to 8 bits, and writes accuracies, detection by density and "
        "the geometry of the embedding as one file for docs/results."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="directory that `fit` wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="NAME.json; the result is called NAME")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets (else ADVSENTRY_DATA)")
    parser.add_argument("--images", type=int, metavar="N", help="test images to attack (default: 1000, or all)")
    parser.add_argument("--attacks", type=_names, default=(), metavar="A,B", help="some of the battery's attacks")
    parser.add_argument(
        "--restarts", type=int, default=FULL.restarts, metavar="N", help="starts of PGD (default: %(default)s)"
    )
    parser.add_argument(
        "--queries", type=int, default=FULL.queries, metavar="N", help="of Square within aa_like (default: %(default)s)"
    )
    parser.add_argument("--l2-eps", type=float, metavar="E", help="budget of the L2 attack, images being in [0, 1]")
    parser.add_argument(
        "--norms",
        metavar="NORM=EPS,...",
        help="also the worst case over these, such as linf=0.3,l2=2,l1=10 (default: those of the recipe's [minmax])",
    )
    parser.add_argument(
        "--mask",
        metavar="KIND",
        help="attack background and foreground apart too: pixels, box, saliency, cam, segment or an .npz file of masks "
        "(default: as a recipe of localized training has it, else not at all)",
    )
    parser.add_argument(
        "--mask-run", type=Path, metavar="RUN", help="with --mask cam or saliency: whose network's (default: RUN's own)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images and of the attacks")
    parser.add_argument("--quick", action="store_true", help="weak attacks for a first look; the file says so")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(command=_robustness)


def _add_analyse(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Analyses finished runs of one data set as the papers do (frequencies, kernels, training curves, embedding) "
        "and writes a self-contained index.html and analysis.json."
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a finished run directory")
    parser.add_argument("--out", type=Path, required=True, help="folder of index.html and analysis.json")
    parser.add_argument("--data", type=Path, help="folder of the data set (or ADVSENTRY_DATA)")
    parser.add_argument("--images", type=int, default=512, metavar="N", help="test images (default: 512)")
    parser.add_argument(
        "--heat-map-images", type=int, default=64, metavar="N", help="of them, for the Fourier heat map"
    )
    parser.add_argument(
        "--eps", type=number, metavar="E", help="budget of the attack, such as 8/255 (default: the runs')"
    )
    parser.add_argument(
        "--low-pass", choices=("published", "symmetric"), default="published", help="the mask of the low-pass filters"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images, the attack and the maps")
    parser.add_argument("--result", type=Path, metavar="FILE", help="also write the small file for docs/results")
    parser.add_argument("--json", action="store_true", help="print the paths and headline figures as JSON")
    parser.set_defaults(command=_analyse)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _recipes(arguments: argparse.Namespace) -> int:
    from training.shipped import run_command

    return run_command(arguments)


def _fit(arguments: argparse.Namespace) -> int:
    from training.fit import run_command

    return run_command(arguments)


def _export(arguments: argparse.Namespace) -> int:
    from training.export import run_command

    return run_command(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from training.evaluation.command import run_command

    return run_command(arguments)


def _compare(arguments: argparse.Namespace) -> int:
    from training.evaluation.compare import run_command

    return run_command(arguments)


def _fusions(arguments: argparse.Namespace) -> int:
    from training.evaluation.fusions_command import run_command

    return run_command(arguments)


def _robustness(arguments: argparse.Namespace) -> int:
    from training.evaluation.robustness import run_command

    return run_command(arguments)


def _analyse(arguments: argparse.Namespace) -> int:
    from training.analysis.command import run_command

    return run_command(arguments)
