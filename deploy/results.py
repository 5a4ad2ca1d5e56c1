"""docs/results.md, tables on other pages and the README's picture, from docs/results/*.json: `make results`."""

import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from deploy.asked import Asked
from deploy.comparison import comparison
from deploy.front.picture import PICTURE, picture
from deploy.front.sweeps import shipped_sweeps
from deploy.front.tables import bench_table, between, evaluations, front_table, side_by_side
from deploy.peers.tables import DETECTORS
from deploy.peers.tables import markdown as detector_tables
from deploy.recipe_words import recipe_words
from training.config import SECTIONS

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
ASKED = RESULTS / "asked.toml"
SQUASHED = RESULTS / "squashed.toml"
PAGE = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- made by `make results` -->", "<!-- end -->"

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
    shipped = [f"## Bundles side by side\n\n{side_by_side(results)}\n"] if evaluations(results) else []
    return "\n".join([HEAD, *shipped, comparison(results, of_methods), *sections])


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
            f"Recipe {_recipe(result['recipe'])}; seed {result['seed']}; commit {_commit(result['commit'])}; "
            f"{_flat(result['machine'])}; {result['seconds']:.0f} s; data {_flat(result['data'])}.",
            "",
            *runs,
            *(["| metric | asked | measured | reached |", "|---|---|---|---|", *rows, ""] if rows else []),
        ]
    )


def _commit(name: str) -> str:
    """With the commit that it became part of, where this history has it as that."""
    into = next((into for into, commits in squashed().items() if name.rstrip("+") in commits), None)
    return name if into is None else f"{name}, which is part of {into}"


@cache
def squashed() -> Mapping[str, Sequence[str]]:
    """Commits that results name and this history lacks, by the one that they became part of."""
    return tomllib.loads(SQUASHED.read_text(encoding="utf-8"))


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


def readme(text: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The README with its table made anew.

    Raises:
        ValueError: the marks of the table are missing.
    """
    return between(text, BEGIN, END, front_table(results, shipped_sweeps()))


def performance(text: str, results: Sequence[Mapping[str, Any]]) -> str:
    """docs/performance.md with its table made anew.

    Raises:
        ValueError: the marks of the table are missing.
    """
    return between(text, BEGIN, END, bench_table(results))


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
    """Writes them all."""
    PAGE.write_text(current_page(), encoding="utf-8")
    results = load()
    for path, make in ((README, readme), (PERFORMANCE, performance)):
        path.write_text(make(path.read_text(encoding="utf-8"), results), encoding="utf-8")
    PICTURE.write_text(picture(shipped_sweeps()), encoding="utf-8")
    print(PAGE, README, PERFORMANCE, PICTURE, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
