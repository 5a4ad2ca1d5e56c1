"""docs/results.md from docs/results/*.json, asked beside measured: `make results`."""

import json
import operator
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
ASKED = RESULTS / "asked.toml"
PAGE = ROOT / "docs" / "results.md"

FIELDS = ("name", "command", "recipe", "seed", "commit", "machine", "seconds", "data", "metrics")
COMPARE: Mapping[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, "=": operator.eq}
HEAD = """# Results

Made by `make results` from the files beside `docs/results/asked.toml`, one a run; edit those, not this page.
"""


def page(results: list[Mapping[str, Any]], asked: Mapping[str, Mapping[str, str]]) -> str:
    """The page's text.

    Raises:
        ValueError: something was asked of a run or a metric that no result has.
    """
    names = {result["name"] for result in results}
    if unknown := asked.keys() - names:
        raise ValueError(f"asked.toml asks of {sorted(unknown)}, but there are results of {sorted(names)} only")
    return "\n".join([HEAD, *(_section(result, asked.get(result["name"], {})) for result in results)])


def _section(result: Mapping[str, Any], asked: Mapping[str, str]) -> str:
    metrics: Mapping[str, float] = result["metrics"]
    if unknown := asked.keys() - metrics.keys():
        raise ValueError(f"asked.toml asks for {sorted(unknown)} of {result['name']}, which its result does not have")
    rows = [
        f"| {name} | {asked.get(name, '')} | {value:.4g} | {_reached(value, asked.get(name))} |"
        for name, value in metrics.items()
    ]
    return "\n".join(
        [
            f"## {result['name']}",
            "",
            f"    {result['command']}",
            "",
            f"Recipe {_flat(result['recipe'])}; seed {result['seed']}; commit {result['commit']}; "
            f"{_flat(result['machine'])}; {result['seconds']:.0f} s; data {_flat(result['data'])}.",
            "",
            "| metric | asked | measured | reached |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _flat(value: Any) -> str:
    return ", ".join(f"{key} {_flat(item)}" for key, item in value.items()) if isinstance(value, dict) else str(value)


def _reached(value: float, asked: str | None) -> str:
    if asked is None:
        return ""
    sign, bound = asked.split()
    return "yes" if COMPARE[sign](value, float(bound)) else "**no**"


def load() -> list[Mapping[str, Any]]:
    """Every result file, by name.

    Raises:
        ValueError: a file lacks a field.
    """
    results = []
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if missing := set(FIELDS) - result.keys():
            raise ValueError(f"{path.name}: {', '.join(sorted(missing))} missing")
        results.append(result)
    return results


def current_page() -> str:
    """The page that the committed result files give."""
    return page(load(), tomllib.loads(ASKED.read_text(encoding="utf-8")))


def main() -> int:
    """Writes the page."""
    PAGE.write_text(current_page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
