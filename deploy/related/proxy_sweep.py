"""Prints accuracies over the number of generated images, from docs/results: `python -m deploy.related.proxy_sweep`."""

import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.comparison import groups
from deploy.results import load

__all__ = ["sweep"]

NAME = re.compile(r"mnist-proxy-pca-(\d+)")
NONE = "mnist-proxy-real"
METRICS = ("clean_accuracy", "pgd_100_accuracy", "worst_accuracy")


def sweep(results: Sequence[Mapping[str, Any]]) -> str:
    """A table: generated images down, accuracies in percent across, mean and standard deviation over the seeds.

    Raises:
        ValueError: there is no such result.
    """
    sizes = {}
    for name, several in groups(results).items():
        if name == NONE:
            sizes[0] = several
        elif match := NAME.fullmatch(name):
            sizes[int(match[1])] = several
    if not sizes:
        raise ValueError(
            "expected results called mnist-proxy-pca-SIZE-sSEED, found none; deploy/related/proxy.sh makes them"
        )
    lines = [f"| generated images | {' | '.join(METRICS)} | seeds |", "|---|" + "---|" * (len(METRICS) + 1)]
    for size, several in sorted(sizes.items()):
        cells = [_cell([100 * one["metrics"][metric] for one in several]) for metric in METRICS]
        lines.append(f"| {size} | {' | '.join(cells)} | {len(several)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def main() -> int:
    """Prints the table."""
    print(sweep(load()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
