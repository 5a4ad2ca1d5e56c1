"""Training methods side by side, over seeds: from the result files whose name ends in -sSEED."""

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.asked import Asked
from deploy.recipe_words import set_values
from training.differences import differences
from training.spelling import budget_words

__all__ = ["comparison", "groups"]

NAME = re.compile(r"(?P<group>.+)-s(?P<seed>\d+)")

COLUMNS: Mapping[str, str] = {
    "clean_accuracy": "clean",
    "fgsm_accuracy": "FGSM",
    "pgd_20_accuracy": "PGD-20",
    "pgd_100_accuracy": "PGD-100",
    "margin_pgd_accuracy": "margin PGD",
    "aa_like_accuracy": "APGD-CE, APGD-T, Square",
    "worst_accuracy": "worst",
    "norms_linf_accuracy": "Linf",
    "norms_l2_accuracy": "L2",
    "norms_l1_accuracy": "L1",
    "norms_l0_accuracy": "L0",
    "worst_over_norms_accuracy": "worst over norms",
    "minmax_asr_all": "all fail, min-max",
    "average_asr_all": "all fail, equal weights",
    "held_asr_all": "all fail, converged weights held",
    "asr_gain": "min-max less equal weights",
    "auc_misclassified_150": "AUC, misclassified at 1.5 eps",
    "auc_misclassified_150_gaussian": "the same, one covariance",
    "auc_attacked_100": "AUC, attacked at eps",
    "training_seconds": "training, s",
}
"""Metrics of `advsentry-train robustness` and `minmax` that the table shows, and their words; rates are in percent."""

Result = Mapping[str, Any]


def groups(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results of one method by the name before -sSEED, seeds in order; other results are left out."""
    found: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda one: int(one["seed"])):
        if match := NAME.fullmatch(result["name"]):
            if result["data"].get("quick"):
                raise ValueError(f"{result['name']}: measured with --quick, which is too weak to be quoted")
            if int(match["seed"]) != result["seed"]:
                raise ValueError(f"{result['name']}: expected seed {match['seed']}, got {result['seed']}")
            found.setdefault(match["group"], []).append(result)
    for name, several in found.items():
        if len({_conditions(result) for result in several}) > 1:
            raise ValueError(
                f"{name}: expected seeds of one data set, threat model and measurement, got different ones"
            )
        first, *others = ({**set_values(result["recipe"]), "train.seed": None} for result in several)
        for other in others:
            if different := differences(first, other):
                raise ValueError(f"{name}: expected seeds of one recipe, got one with {different}")
    return dict(sorted(found.items()))


def _conditions(result: Result) -> tuple[str, str]:
    """What has to agree where results are averaged or compared: setting, and how it was measured."""
    words = result["command"].split()
    own = {f"runs/{result['name']}", f"docs/results/{result['name']}.json"}
    ending = f"-s{result['seed']}"  # of the runs of an ensemble
    return _setting(result), " ".join(word.removesuffix(ending) for word in words if word not in own)


def comparison(results: Sequence[Result], asked: Sequence[Mapping[str, str]]) -> str:
    """The section's text; empty without such results.

    Args:
        results: of every kind.
        asked: records of left, right, metric and asked, where left minus right is asked to be ">= bound"; without right
            the metric of left itself.

    Raises:
        ValueError: something is asked of a method or a metric that no result has, a result is a quick one, or results
            that stand side by side were not measured alike.
    """
    found = groups(results)
    if not found:
        return ""
    lines = [
        "## Training methods",
        "",
        "Mean over the seeds and, behind ±, their standard deviation; accuracies and AUCs in percent.",
        "[robustness.md](robustness.md) says what each column means. The runs, each with command and recipe, stand",
        "below under METHOD-sSEED; the command says how many starts and queries the attacks had. *worst* is over the",
        "attacks shown. PGD-20 takes larger steps than PGD-100, a quarter of the budget, and may be the stronger one.",
        "",
    ]
    for data in sorted({_setting(several[0]) for several in found.values()}):
        own = {name: several for name, several in found.items() if _setting(several[0]) == data}
        if len({_conditions(several[0]) for several in own.values()}) > 1:
            raise ValueError(f"{data}: expected methods that were measured alike, got different commands")
        shown = [
            metric for metric in COLUMNS if any(metric in one["metrics"] for several in own.values() for one in several)
        ]
        lines += [f"### {data}", "", f"| method | seeds | {' | '.join(COLUMNS[metric] for metric in shown)} | images |"]
        lines += ["|---|---|" + "---|" * (len(shown) + 1)]
        for name, several in own.items():
            images = several[0]["data"]["attacked_images"]
            cells = " | ".join(_cell(several, metric) for metric in shown)
            lines.append(f"| {name} | {len(several)} | {cells} | {images} |")
        lines.append("")
    return "\n".join([*lines, *_asked(found, asked)])


def _setting(result: Result) -> str:
    data, attack = result["data"], result["recipe"]["attack"]
    if "norms" in data:
        return f"{data['set']}, over {', '.join(f'{norm} {eps:g}' for norm, eps in data['norms'].items())}"
    if "experiment" in data:
        return f"{data['set']}, min-max {data['experiment']}, {data['budget']}"
    return f"{result['data']['set']}, {attack['norm']} {budget_words(attack['eps'])}"


def _cell(several: Sequence[Result], metric: str) -> str:
    values = [result["metrics"][metric] for result in several if metric in result["metrics"]]
    if not values:
        return ""
    if metric == "training_seconds":
        return f"{statistics.mean(values):.0f}"
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


def _asked(found: Mapping[str, Sequence[Result]], asked: Sequence[Mapping[str, str]]) -> list[str]:
    if not asked:
        return []
    lines = ["### Asked of them", "", "| figure | asked | measured | of each seed | reached |", "|---|---|---|---|---|"]
    for one in asked:
        values = _values(found, one)
        mean = statistics.mean(values)
        what = f"{one['metric']} of {one['left']}" + (f" minus that of {one['right']}" if "right" in one else "")
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        each = ", ".join(f"{value:.4f}" for value in values)
        reached = Asked.parsed(one["asked"]).reached(mean)
        lines.append(f"| {what} | {one['asked']} | {mean:.4f}{spread} | {each} | {reached} |")
    return [*lines, ""]


def _values(found: Mapping[str, Sequence[Result]], one: Mapping[str, str]) -> list[float]:
    """One a seed: of the left method, or of left minus right for the seeds that both have."""
    sides = []
    for side in (one["left"], one.get("right")):
        if side is None:
            continue
        if side not in found or any(one["metric"] not in result["metrics"] for result in found[side]):
            raise ValueError(f"asked.toml asks for {one['metric']} of {side}, which no result has")
        sides.append({result["seed"]: float(result["metrics"][one["metric"]]) for result in found[side]})
    seeds = sorted(set.intersection(*(set(side) for side in sides)))
    if not seeds:
        raise ValueError(f"asked.toml: {one['left']} and {one['right']} have no seed in common")
    return [sides[0][seed] - (sides[1][seed] if len(sides) > 1 else 0) for seed in seeds]
