"""What localized training recovers, over seeds, from the measurements of deploy/related/localized.sh.

Of MNIST it asks how much of the accuracy that the attack on the background takes from natural training comes back, and
what that costs clean accuracy; of GTSRB how PART compares with the plain adversarial training that it changes.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.result_file import write_result

__all__ = ["SETS", "collected", "main", "part_figures", "recovery_figures"]

SEEDS = (0, 1, 2)
SHOWN = (
    "training_seconds",
    "clean_accuracy",
    "fgsm_accuracy",
    "pgd_20_accuracy",
    "pgd_100_accuracy",
    "margin_pgd_accuracy",
    "worst_accuracy",
    "background_fgsm_accuracy",
    "background_pgd_accuracy",
    "foreground_fgsm_accuracy",
    "foreground_pgd_accuracy",
    "background_share",
    "cam_on_background",
    "saliency_on_background",
)
"""Figures of each run that the result keeps."""

Result = Mapping[str, Any]
Runs = Mapping[str, Sequence[Mapping[str, float]]]
"""Metrics by method, one mapping a seed."""


def recovery_figures(runs: Runs) -> dict[str, float]:
    """Of natural and localized training, seed by seed and their means.

    `recovered` is the share of what PGD on the background takes from natural training that localized training gets
    back; of `once` the attacked images were made once.
    """
    figures = {}
    for method in ("localized", "once", "global"):
        shares, changes = [], []
        for natural, other in zip(runs["natural"], runs[method], strict=True):
            taken = natural["clean_accuracy"] - natural["background_pgd_accuracy"]
            if taken <= 0:
                raise ValueError(f"expected the attack on the background to take accuracy, got {taken:g}")
            shares.append((other["background_pgd_accuracy"] - natural["background_pgd_accuracy"]) / taken)
            changes.append(other["clean_accuracy"] - natural["clean_accuracy"])
        name = "" if method == "localized" else f"_{method}"
        figures[f"recovered{name}"] = statistics.mean(shares)
        figures[f"recovered{name}_least_seed"] = min(shares)
        figures[f"clean_change{name}"] = statistics.mean(changes)
        figures[f"clean_change{name}_least_seed"] = min(changes)
    taken_by_seed = [one["clean_accuracy"] - one["background_pgd_accuracy"] for one in runs["natural"]]
    return figures | {"taken_by_background_pgd": statistics.mean(taken_by_seed)}


def part_figures(runs: Runs) -> dict[str, float]:
    """Of PART minus plain adversarial training, means over seeds."""
    figures = {}
    for metric in ("clean_accuracy", "pgd_20_accuracy", "pgd_100_accuracy", "worst_accuracy"):
        pairs = zip(runs["part"], runs["global"], strict=True)
        figures[f"part_minus_global_{metric}"] = statistics.mean(left[metric] - right[metric] for left, right in pairs)
    return figures


SETS: Mapping[str, tuple[Sequence[str], Callable[[Runs], dict[str, float]]]] = {
    "mnist": (("natural", "global", "localized", "once"), recovery_figures),
    "gtsrb": (("global", "part"), part_figures),
}
"""Methods of each set, and what is made of their figures."""


def collected(name: str, folder: Path) -> tuple[dict[str, list[Result]], dict[str, float]]:
    """The measurements of a set by method, and all figures of its result.

    Raises:
        SystemExit: a measurement is missing, was a quick one, or others were measured otherwise.
    """
    methods, further = SETS[name]
    found = {method: [_read(folder / f"{name}-{method}-s{seed}.json") for seed in SEEDS] for method in methods}
    how = {_how(result) for several in found.values() for result in several}
    if len(how) > 1:
        raise SystemExit(f"{folder}: expected runs that were measured alike, got {' and '.join(sorted(how))}")
    figures = {
        f"{name}-{method}-s{seed}/{metric}": result["metrics"][metric]
        for method, several in found.items()
        for seed, result in zip(SEEDS, several, strict=True)
        for metric in SHOWN
        if metric in result["metrics"]
    }
    runs = {method: [result["metrics"] for result in several] for method, several in found.items()}
    return found, figures | further(runs)


def _read(path: Path) -> Result:
    try:
        result: Result = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SystemExit(f"{path}: expected a measurement, as deploy/related/localized.sh makes it: {error}") from error
    if result["data"].get("quick"):
        raise SystemExit(f"{path}: measured with --quick, which is too weak to be quoted")
    return result


def _how(result: Result) -> str:
    words: list[str] = result["command"].split()
    return " ".join(words[words.index("--images") :]) if "--images" in words else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the result of a set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("folder", type=Path, metavar="DIR", help="of the measurements SET-METHOD-sSEED.json")
    parser.add_argument("--result", type=Path, required=True, metavar="FILE", help="NAME.json")
    options = parser.parse_args(arguments)
    found, figures = collected(options.set, options.folder)
    every = [result for several in found.values() for result in several]
    write_result(
        options.result,
        name=options.result.stem,
        module="deploy.related.localized",
        recipe={"methods": ", ".join(found), "seeds": ", ".join(map(str, SEEDS)), "measured": _how(every[0])},
        seed=SEEDS[0],
        seconds=round(sum(result["seconds"] + result["metrics"]["training_seconds"] for result in every), 1),
        data=every[0]["data"],
        metrics=figures,
        arguments=arguments,
    )
    sys.stderr.write(f"{options.result}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
