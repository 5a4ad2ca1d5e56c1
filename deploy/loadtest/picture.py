"""The picture of a load test: latency over time, and what came of the calls."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot

from deploy.loadtest.sending import Sent
from service.detection.types import Float64s

__all__ = ["draw"]

WINDOWS = 60
"""Points of a line, for each profile."""
LINES = ((50.0, "median", "#3465a4"), (99.0, "p99", "#cc0000"))


def draw(path: Path, runs: Mapping[str, Sent], title: str) -> None:
    """Writes an SVG or a PNG, by the name's ending: one column a profile.

    Args:
        runs: by profile.
    """
    matplotlib.rcParams["svg.hashsalt"] = "advsentry"  # the same calls give the same file
    size = (4.5 * len(runs), 5.5)
    figure, axes = pyplot.subplots(
        2, len(runs), figsize=size, layout="constrained", squeeze=False, sharex="col", sharey="row"
    )
    for column, (profile, sent) in enumerate(runs.items()):
        latency, rates = axes[0][column], axes[1][column]
        edges = np.linspace(0.0, float(sent.due_s[-1]) + 1e-9, WINDOWS + 1)
        middles, length = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
        window = np.clip(np.searchsorted(edges, sent.due_s, side="right") - 1, 0, WINDOWS - 1)
        is_ok = np.array(sent.codes) == "OK"
        for share, name, colour in LINES:
            line = [_percentile(sent.latency_ms[is_ok & (window == one)], share) for one in range(WINDOWS)]
            latency.plot(middles, line, color=colour, label=name)
        offered = np.bincount(window, minlength=WINDOWS) / length
        answered = np.bincount(window[is_ok], minlength=WINDOWS) / length
        rates.plot(middles, offered, color="#888a85", label="offered")
        rates.plot(middles, answered, color="#4e9a06", label="answered")
        latency.set_title(profile)
        latency.set_yscale("log")
        rates.set_xlabel("seconds")
        for one in (latency, rates):
            one.grid(visible=True, alpha=0.3)
    axes[0][0].set_ylabel("latency, ms")
    axes[1][0].set_ylabel("calls a second")
    axes[0][0].legend()
    axes[1][0].legend()
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _percentile(values: Float64s, share: float) -> float:
    return float(np.percentile(values, share)) if len(values) else float("nan")
