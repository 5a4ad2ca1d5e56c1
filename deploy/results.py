"""docs/results.md, and the README's table, from docs/results/*.json: `make results`."""

import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.asked import Asked
from deploy.comparison import comparison
from deploy.peers.tables import DETECTORS
from deploy.peers.tables import markdown as detector_tables
from deploy.recipe_words import recipe_words
from training.config import SECTIONS

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
ASKED = RESULTS / "asked.toml"
PAGE = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- made by `make results` -->", "<!-- end -->"
BENCH_BEGIN = "<!-- made by `make results` from the benchmark -->"
SHEET_BEGIN = "<!-- made by `make results` from the reliability sheet -->"

ROWS: Mapping[str, str] = {
    "training_seconds": "training, seconds",
    "clean_accuracy": "clean accuracy",
    "pgd_accuracy": "accuracy under PGD, 100 steps, 5 restarts",
    "worst_linf_accuracy": "accuracy, worst of all attacks within the Linf budget",
    "mean_auroc_successful": "AUROC of attacks that fool, mean over the battery",
    "worst_auroc_successful": "AUROC of attacks that fool, worst attack of 20 images or more",
    "mean_auroc": "AUROC of all attacked images, mean over the battery",
    "cw_l2_found_at_0.05": "found of C&W L2 that fools, at 5 % false positives",
    "square_found_at_0.05": "found of Square that fools, at 5 % false positives",
    "adaptive_worst_linf_accuracy": "accuracy, worst of all attacks, detectors known too",
    "adaptive_worst_linf_safe_at_0.05": "right or rejected, detectors known, at 5 % false positives",
    "false_positive_rate_at_0.01": "false positives, promised 0.01",
    "false_positive_rate_at_0.05": "false positives, promised 0.05",
    "worst_mild_shift_false_positive_rate_at_0.01": "false positives under the worst mild shift, promised 0.01",
}
"""Metrics of an evaluation that the README shows, and their words."""

NEEDED = frozenset({"pgd_accuracy", "mean_auroc", "adaptive_worst_linf_accuracy"})
"""Metrics by which a whole evaluation is known."""

BENCH_ROWS: Mapping[str, str] = {
    "_bare_cpu_us": "bare graph at its best batch, microseconds an image",
    "_bare_images_per_s": "bare graph at its best batch, images a second",
    "_stream_ratio_to_bare": "StreamDetect, share of that rate",
    "_batch_ratio_to_bare": "BatchDetect of 64, share of that rate",
    "_detect_32_images_per_s": "Detect, 32 calls at once, images a second",
    "_detect_1_p50_ms": "Detect, one call, median, ms",
    "_detect_1_p99_ms": "Detect, one call, 99th percentile, ms",
}
"""The same of the benchmark, behind each bundle's name."""

SHEET_ROWS: Mapping[str, tuple[str, Sequence[str]]] = {
    "R-1": ("70 % of the capacity", ("errors", "p50_ms", "p99_ms", "queue_p99_ms")),
    "R-2": (
        "three times the capacity",
        ("goodput_of_capacity", "otherwise_ended", "refusal_longest_ms", "accepted_p99_ms", "rss_growth_mb"),
    ),
    "R-9": (
        "memory, a fifth of the calls cancelled, a fifth too late",
        ("calls", "mb_per_100k_calls", "control_mb_per_100k_calls"),
    ),
    "R-11": (
        "SIGTERM under load",
        ("restarts", "calls", "failed", "calls_without_health", "lost_in_flight", "cancelled_by_grpc"),
    ),
    "R-16": ("images alone, in batches, by every method, bit for bit", ("answers_compared", "answers_differing")),
}
"""Rows of the reliability sheet that the README shows: their words and their figures."""

SHEET = "checks"
"""The field by which the reliability sheet is known; it has a page of its own."""

FIELDS = ("name", "command", "recipe", "seed", "commit", "machine", "seconds", "data", "metrics")
HEAD = """# Results

Made by `make results` from the files beside `docs/results/asked.toml`, one a run; edit those, not this page.
"""


def page(
    results: list[Mapping[str, Any]],
    asked: Mapping[str, Mapping[str, str]],
    of_methods: Sequence[Mapping[str, str]] = (),
) -> str:
    """The page's text.

    Args:
        results: the files.
        asked: of single runs: name to metric to "sign bound"; the bound may be another metric, or a number and a
            metric, whose product counts.
        of_methods: of training methods over their seeds, see `deploy.comparison.comparison`.

    Raises:
        ValueError: something was asked of a run or a metric that no result has.
    """
    names = {result["name"] for result in results}
    if unknown := asked.keys() - names:
        raise ValueError(f"asked.toml asks of {sorted(unknown)}, but there are results of {sorted(names)} only")
    sections = [_section(result, asked.get(result["name"], {})) for result in results]
    return "\n".join([HEAD, comparison(results, of_methods), *sections])


def _section(result: Mapping[str, Any], asked: Mapping[str, str]) -> str:
    metrics: Mapping[str, float] = result["metrics"]
    if unknown := asked.keys() - metrics.keys():
        raise ValueError(f"asked.toml asks for {sorted(unknown)} of {result['name']}, which its result does not have")

    def _reached(name: str) -> str:
        return Asked.parsed(asked[name]).reached(metrics[name], metrics) if name in asked else ""

    if SHEET in result:
        return f"## {result['name']}\n\nIn [reliability.md](reliability.md).\n"
    runs = detector_tables(result) if DETECTORS in result else _by_run(metrics)
    shown = {name: metrics[name] for name in asked} if runs else metrics
    rows = [
        f"| {name} | {asked.get(name, '')} | {_number(value)} | {_reached(name)} |" for name, value in shown.items()
    ]
    return "\n".join(
        [
            f"## {result['name']}",
            "",
            f"    {result['command']}",
            "",
            f"Recipe {_recipe(result['recipe'])}; seed {result['seed']}; commit {result['commit']}; "
            f"{_flat(result['machine'])}; {result['seconds']:.0f} s; data {_flat(result['data'])}.",
            "",
            *runs,
            *(["| metric | asked | measured | reached |", "|---|---|---|---|", *rows, ""] if rows else []),
        ]
    )


def _number(value: float) -> str:
    """Whole numbers in full, others to four figures."""
    return f"{value:.0f}" if value == round(value) else f"{value:.4g}"


def _by_run(metrics: Mapping[str, float]) -> list[str]:
    """A table of metrics called RUN/FIGURE, as an analysis has them: figures down, runs across."""
    names = [name.rsplit("/", 1) for name in metrics if "/" in name]  # a run may be called by its path
    if not names:
        return []
    runs, figures = list(dict.fromkeys(run for run, _ in names)), list(dict.fromkeys(figure for _, figure in names))
    lines = [f"| | {' | '.join(runs)} |", "|---|" + "---|" * len(runs)]
    for figure in figures:
        cells = [f"{metrics[f'{run}/{figure}']:.3g}" if f"{run}/{figure}" in metrics else "" for run in runs]
        lines.append(f"| {figure} | {' | '.join(cells)} |")
    return [*lines, ""]


def _recipe(recipe: Mapping[str, Any]) -> str:
    """In words; the result file has all values."""
    return recipe_words(recipe) if recipe.keys() <= SECTIONS.keys() else _flat(recipe)  # of a benchmark, say


def _flat(value: Any) -> str:
    return ", ".join(f"{key} {_flat(item)}" for key, item in value.items()) if isinstance(value, dict) else str(value)


def readme_table(results: list[Mapping[str, Any]]) -> str:
    """The README's table: evaluations side by side, each with what made it."""
    shown = [result for result in results if result["metrics"].keys() >= NEEDED]
    columns = [f"{result['name']}, {_budget(result)}" for result in shown]
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(shown)]
    for name, words in ROWS.items():
        lines.append(f"| {words} | {' | '.join(_figure(result, name) for result in shown)} |")
    lines.append("")
    lines += [
        f"* {result['name']}: {_images(result)}; seed {result['seed']}, commit {result['commit']}; "
        f"`{result['command']}`"
        for result in shown
    ]
    return "\n".join(lines)


def bench_table(results: list[Mapping[str, Any]]) -> str:
    """The README's table of the benchmark; empty when there is none."""
    lines = []
    for result in results:
        metrics = result["metrics"]
        bundles = [name.removesuffix("_bare_images_per_s") for name in metrics if name.endswith("_bare_images_per_s")]
        if not bundles:
            continue
        lines += [f"| | {' | '.join(bundles)} |", "|---|" + "---|" * len(bundles)]
        for name, words in BENCH_ROWS.items():
            lines.append(f"| {words} | {' | '.join(_short(metrics[bundle + name]) for bundle in bundles)} |")
        lines += ["", f"* {result['machine']}; commit {result['commit']}; `{result['command']}`"]
    return "\n".join(lines)


def sheet_table(results: list[Mapping[str, Any]]) -> str:
    """The README's rows of the reliability sheet; empty when there is none."""
    lines = []
    for result in results:
        if SHEET not in result:
            continue
        lines += ["| | measured (asked) | |", "|---|---|---|"]
        shown = [row for row in result[SHEET] if row["number"] in SHEET_ROWS]
        for row in shown:
            words, names = SHEET_ROWS[row["number"]]
            figures, asked = row["judged"]["figures"], row["asked"]
            cells = [f"{name} {_short(figures[name])}{_asked(asked.get(name))}" for name in names if name in figures]
            lines.append(f"| {row['number']}, {words} | {'; '.join(cells)} | {row['judged']['verdict']} |")
        commits = sorted({row["commit"] for row in shown})
        lines += ["", f"* {result['machine']}; commit {', '.join(commits)}; `{result['command']}`"]
    return "\n".join(lines)


def _asked(bound: str | None) -> str:
    return f" ({bound})" if bound else ""


def _figure(result: Mapping[str, Any], name: str) -> str:
    value = result["metrics"].get(name)
    return "none" if value is None else _short(value)  # no image supports it


def _short(value: float) -> str:
    """Three figures, or whole numbers where there are more."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _budget(result: Mapping[str, Any]) -> str:
    attack = result["recipe"]["attack"]
    return f"{attack['norm']} {attack['eps']:g}"


def _images(result: Mapping[str, Any]) -> str:
    return f"{result['data']['test_images']} clean test images, {result['data']['attacked_images']} attacked"


def readme(text: str, results: list[Mapping[str, Any]]) -> str:
    """The README with its tables made anew.

    Raises:
        ValueError: the marks of a table are missing.
    """
    tables = {BEGIN: readme_table(results), BENCH_BEGIN: bench_table(results), SHEET_BEGIN: sheet_table(results)}
    for mark, table in tables.items():
        text = _between(text, mark, table)
    return text


def _between(text: str, mark: str, table: str) -> str:
    before, begin, rest = text.partition(mark)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md: expected {mark} and {END} around the table")
    return f"{before}{mark}\n\n{table}\n\n{END}{after}"


def load() -> list[Mapping[str, Any]]:
    """Every result file, by name.

    Raises:
        ValueError: a file lacks a field, or holds the figures of a quick run.
    """
    results = []
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if missing := set(FIELDS) - result.keys():
            raise ValueError(f"{path.name}: {', '.join(sorted(missing))} missing")
        if isinstance(result["data"], dict) and result["data"].get("quick"):
            raise ValueError(f"{path.name}: the figures of a quick run are not kept; measure again without --quick")
        results.append(result)
    return results


def current_page() -> str:
    """The page that the committed result files give."""
    asked = tomllib.loads(ASKED.read_text(encoding="utf-8"))
    of_methods = asked.pop("methods", [])
    return page(load(), asked, of_methods)


def main() -> int:
    """Writes both."""
    PAGE.write_text(current_page(), encoding="utf-8")
    README.write_text(readme(README.read_text(encoding="utf-8"), load()), encoding="utf-8")
    print(PAGE, README, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
