"""The figures on the pages of docs/related, from docs/results: `make docs`."""

import json
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.comparison import groups
from deploy.loadtest.page import page, table

__all__ = ["current_pages", "tables"]

ROOT = Path(__file__).parent.parent.parent
PAGES = ROOT / "docs" / "related"
RESULTS = ROOT / "docs" / "results"

Metrics = Mapping[str, float]
Cells = Sequence[str]
Rows = Mapping[str, Cells]

PURSUIT = {
    "skips-t0": "feed-forward (T = 0)",
    "skips-t1": "T = 1",
    "skips-t2": "T = 2",
    "skips-t5": "T = 5",
    "skips-t10": "T = 10",
    "plain-t0": "feed-forward, no skips",
    "plain-t5": "T = 5, no skips",
    "layered-t5": "layered pursuit of 5 steps a layer, no skips",
}
GENERATED = {
    "real": "none: the same 1,000 real ones alone",
    "pca-1000": "1,000 of `pca-gaussian`",
    "pca-2000": "2,000 of `pca-gaussian`",
    "pca-5000": "5,000 of `pca-gaussian`",
    "pca-10000": "10,000 of `pca-gaussian`",
    "pca-20000": "20,000 of `pca-gaussian`",
    "pixel-10000": "10,000 of `pixel-gaussian`",
    "diffusion-10000": "10,000 of `diffusion`",
}
ARC_OF = {"real": "real", "pca-10000": "pca-gaussian", "pixel-10000": "pixel-gaussian", "diffusion-10000": "diffusion"}
"""The set of which a row tells ARC, by the row."""
RETRIEVAL = {
    "": "plain",
    "-robust": "`mnist-metric-robust`",
    "-hardness": "`hardness`, ICS",
    "-contrastive": "plain, contrastive",
    "-contrastive-robust": "robust, contrastive",
}
DOMAINS = {
    "ensemble": "four networks, Linf 0.2",
    "ensemble-l2": "four networks, L2",
    "ensemble-l1": "four networks, L1",
    "ensemble-l0": "four networks, L0",
    "transforms": "six transformations",
    "universal": "five images",
}
NORMS = {
    "learned": "learned weights",
    "average": "AVG",
    "max": "MAX",
    "msd": "MSD",
    "linf": "Linf alone",
    "l2": "L2 alone",
    "l1": "L1 alone",
}
METHODS = {"natural": "natural", "global": "attacked everywhere", "localized": "`mnist-localized`"}
_NO_TABLE_NEEDS_THEM = re.compile(r"(<!-- made by .* -->\n)\n|\n(\n<!-- end -->)")
"""Empty lines around tables; these pages are short."""
_SEED = re.compile(r"mnist-(?P<method>\w+)-s\d+/(?P<figure>\w+)")


def tables(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Of each page its tables by their names; of results that are there.

    Cells are means over the seeds and, after ±, their standard deviation; rates are in percent.
    """
    by_name = {result["name"]: result["metrics"] for result in results}
    seeds = {name: [one["metrics"] for one in several] for name, several in groups(results).items()}
    arcs = [metrics for name, metrics in sorted(by_name.items()) if name.startswith("mnist-proxy-arc-")]
    made = {
        "deep-pursuit": {"pursuit": _pursuit(by_name.get("mnist-pursuit", {}))},
        "proxy": {"proxy": _proxy(seeds, arcs)},
        "metric_learning": {"retrieval": _retrieval(by_name.get("mnist-retrieval", {}))},
        "min-max": {"domains": _domains(seeds), "norms": _norms(seeds)},
        "localized": {"localized": _localized(by_name.get("mnist-localized", {}))},
    }
    return {name: {title: text for title, text in found.items() if text} for name, found in made.items()}


def _pursuit(metrics: Metrics) -> str:
    figures = ("clean_accuracy", "pgd_at_0.5_accuracy", "pgd_100_accuracy", "worst_accuracy")
    rows = {}
    for key, words in PURSUIT.items():
        name = f"mnist-pursuit-{key}"
        if f"{name}/seeds" not in metrics:
            continue
        shown = [_percent(metrics[f"{name}/{one}"], metrics.get(f"{name}/{one}_spread")) for one in figures]
        rows[words] = [*shown, _whole(metrics[f"{name}/masking_signs"]), _whole(metrics[f"{name}/seeds"])]
    return _table("| network | clean | PGD at half eps | PGD-100 | worst attack | signs of masking | seeds |", rows)


def _proxy(seeds: Mapping[str, Sequence[Metrics]], arcs: Sequence[Metrics]) -> str:
    rows = {}
    for key, words in GENERATED.items():
        several = seeds.get(f"mnist-proxy-{key}", ())
        if several:
            known = [one[f"{ARC_OF[key]}/arc"] for one in arcs if f"{ARC_OF.get(key)}/arc" in one]
            arc = f"{statistics.mean(known):.3f}" if known else ""
            rows[words] = [*_over(several, "clean_accuracy", "pgd_100_accuracy", "worst_accuracy"), arc]
    return _table("| generated images | clean | PGD-100 | worst attack | seeds | ARC of the set |", rows)


def _retrieval(metrics: Metrics) -> str:
    rows = {}
    for key, words in RETRIEVAL.items():
        mean, spread = f"mnist-metric{key}-mean", f"mnist-metric{key}-sd"
        figures = ("benign_r1", "worst_r1", "benign_map_r", "worst_map_r")
        if f"{mean}/benign_r1" in metrics:
            rows[words] = [_percent(metrics[f"{mean}/{one}"], metrics[f"{spread}/{one}"]) for one in figures]
    return _table("| training | R@1 | R@1, attacked | mAP@R | mAP@R, attacked |", rows)


def _domains(seeds: Mapping[str, Sequence[Metrics]]) -> str:
    rows = {
        words: _over(seeds[f"mnist-{key}"], "minmax_asr_all", "average_asr_all", "asr_gain")
        for key, words in DOMAINS.items()
        if f"mnist-{key}" in seeds
    }
    return _table("| all domains fail | min-max | averaging | gain | seeds |", rows)


def _norms(seeds: Mapping[str, Sequence[Metrics]]) -> str:
    figures = ("clean_accuracy", "norms_linf_accuracy", "norms_l2_accuracy", "norms_l1_accuracy")
    rows = {
        words: _over(seeds[f"mnist-norms-{key}"], *figures, "worst_over_norms_accuracy")
        for key, words in NORMS.items()
        if f"mnist-norms-{key}" in seeds
    }
    return _table("| trained against | clean | Linf 0.2 | L2 1.5 | L1 8 | all three | seeds |", rows)


def _localized(metrics: Metrics) -> str:
    runs: dict[str, dict[str, list[float]]] = {}
    for name, value in metrics.items():
        if match := _SEED.fullmatch(name):
            runs.setdefault(match["method"], {}).setdefault(match["figure"], []).append(value)
    figures = ("clean_accuracy", "background_pgd_accuracy", "foreground_pgd_accuracy", "pgd_100_accuracy")
    rows = {
        words: [*(_spread(runs[key][one]) for one in figures), f"{len(runs[key][figures[0]])}"]
        for key, words in METHODS.items()
        if key in runs
    }
    return _table("| training | clean | background attacked | foreground attacked | PGD-100 everywhere | seeds |", rows)


def _table(head: str, rows: Rows) -> str:
    return table(head, [f"| {' | '.join([words, *cells])} |" for words, cells in rows.items()]) if rows else ""


def _over(several: Sequence[Metrics], *figures: str) -> list[str]:
    """Each figure over the seeds, and how many those are."""
    return [*(_spread([one[figure] for one in several]) for figure in figures), f"{len(several)}"]


def _spread(values: Sequence[float]) -> str:
    return _percent(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)


def _percent(mean: float, spread: float | None) -> str:
    return f"{100 * mean:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def _whole(value: float) -> str:
    return f"{value:g}"


def _loaded(paths: Iterable[Path]) -> list[Mapping[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths)]


def current_pages() -> dict[Path, str]:
    """The pages that the committed results give; a table without its results stays as it is."""
    made = tables(_loaded(RESULTS.glob("mnist-*.json")))
    found = {}
    for name, its_tables in made.items():
        path = PAGES / f"{name}.md"
        text = page(path.read_text(encoding="utf-8"), its_tables, name=path.name)
        found[path] = _NO_TABLE_NEEDS_THEM.sub(r"\1\2", text)
    return found


def main() -> int:
    """Writes the pages."""
    for path, text in current_pages().items():
        path.write_text(text, encoding="utf-8")
        print(path, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
