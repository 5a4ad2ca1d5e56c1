"""What `deploy.bench_history_serving` found for one bundle: as metrics of a result file, and as a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from deploy.load_once import WAYS, Turn
from deploy.loadtest.page import table as markdown

__all__ = ["ASKED", "FULL", "OBSERVE", "OFF", "Figures", "page_table", "table"]

OFF, OBSERVE, FULL = "off", "observe", "full"
"""Servers without a history, with one that begins empty, and with one that is full; others have the names of modes."""
WORDS: Mapping[str, str] = {
    OBSERVE: "begins empty",
    FULL: "full",
    "annotate": "answers wait (`annotate`)",
    "silent": "`silent`",
}
ASKED = 0.8
"""Share of the images a second without a history."""
SATURATED = 0.9
"""Share of its core from which on the client is what limits."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One bundle's."""

    max_batch: int
    """Of the servers."""
    rounds: Sequence[Mapping[tuple[str, str], Turn]]
    """Turns by server and way."""
    entries: Mapping[str, int]
    """Queries that each history has kept in the end."""

    @property
    def servers(self) -> list[str]:
        """Names, that without a history first."""
        return list(dict.fromkeys(server for server, _ in self.rounds[0]))

    def of(self, server: str, way: str, field: Callable[[Turn], float]) -> float:
        """The median over the rounds."""
        return median(field(turns[server, way]) for turns in self.rounds)

    def shares(self, server: str, way: str, field: Callable[[Turn], float]) -> list[float]:
        """Of what it is without a history, of each round, rising."""
        return sorted(field(turns[server, way]) / field(turns[OFF, way]) for turns in self.rounds)

    def sum(self, server: str, way: str | None, field: Callable[[Turn], int]) -> float:
        """Over the rounds, of a way or of all of them, by image."""
        turns = [one[server, name] for one in self.rounds for name in WAYS if way in (None, name)]
        return sum(map(field, turns)) / sum(turn.images for turn in turns)

    def metrics(self, bundle: str) -> dict[str, float]:
        """Flat, each with the bundle's name before it."""
        found: dict[str, float] = {"max_batch": self.max_batch}
        for server in self.servers:
            for way in WAYS:
                name = f"{server}_{way}"
                found[f"{name}_images_per_s"] = self.of(server, way, lambda turn: turn.images_per_s)
                found[f"{name}_server_us"] = self.of(server, way, lambda turn: turn.server_us)
                found[f"{name}_client_share"] = self.of(server, way, lambda turn: turn.client_share)
                if server != OFF:
                    shares = self.shares(server, way, lambda turn: turn.images_per_s)
                    found[f"{name}_share"] = median(shares)
                    found[f"{name}_share_least"], found[f"{name}_share_most"] = shares[0], shares[-1]
                    found[f"{name}_cpu_share"] = median(self.shares(server, way, lambda turn: 1 / turn.server_us))
                    found[f"{name}_observed"] = self.sum(server, way, lambda turn: turn.observed)
                    found[f"{name}_late"] = self.sum(server, way, lambda turn: turn.late)
                    found[f"{name}_behind_s"] = self.of(server, way, lambda turn: turn.behind_s)
            if server != OFF:
                found[f"{server}_flagged"] = self.sum(server, None, lambda turn: turn.flagged)
                found[f"{server}_entries"] = self.entries[server]
        return {f"{bundle}_{name}": float(value) for name, value in found.items()}


def table(bundle: str, figures: Figures) -> str:
    """Ways and servers down, figures across."""
    metrics = figures.metrics(bundle)
    lines = [
        f"{'':<48} {'images/s':>9} {'share':>6} {'of rounds':>12} {'server us':>10} {'by cpu':>7} {'observed':>9} "
        f"{'behind s':>9} {'client':>7}"
    ]
    for way, how in WAYS.items():
        lines += [
            _row(f"{bundle} {how.text}, {server}", f"{bundle}_{server}_{way}", metrics) for server in figures.servers
        ]
    for server in figures.servers[1:]:
        lines.append(
            f"{bundle} {server}: {metrics[f'{bundle}_{server}_entries']:.0f} queries kept in the end, "
            f"{metrics[f'{bundle}_{server}_flagged']:.3f} of the images flagged"
        )
    lines.append(
        f"share: of the images a second without a history, asked >= {ASKED:.2f}; max_batch {figures.max_batch}"
    )
    busy = [
        f"{way} {server}"
        for way in WAYS
        for server in figures.servers
        if metrics[f"{bundle}_{server}_{way}_client_share"] > SATURATED
    ]
    if busy:
        lines.append(f"{bundle}: the client's core was full, so these are the client's figures: {'; '.join(busy)}")
    return "\n".join(lines)


def _row(text: str, name: str, metrics: Mapping[str, float]) -> str:
    start = f"{text:<48} {metrics[f'{name}_images_per_s']:9.0f}"
    server_us, client = f"{metrics[f'{name}_server_us']:10.0f}", f"{metrics[f'{name}_client_share']:7.2f}"
    if f"{name}_share" not in metrics:
        return f"{start} {'':>6} {'':>12} {server_us} {'':>7} {'':>9} {'':>9} {client}"
    spread = f"{metrics[f'{name}_share_least']:.2f} to {metrics[f'{name}_share_most']:.2f}"
    return (
        f"{start} {metrics[f'{name}_share']:6.2f} {spread:>12} {server_us} {metrics[f'{name}_cpu_share']:7.2f} "
        f"{metrics[f'{name}_observed']:9.3f} {metrics[f'{name}_behind_s']:9.2f} {client}"
    )


def page_table(result: Mapping[str, Any]) -> str:
    """Of the content of history-serving.json: shares by bundle and server."""
    found: Mapping[str, float] = result["metrics"]
    rows = []
    for bundle in (name.removesuffix("_max_batch") for name in found if name.endswith("_max_batch")):
        for server, words in WORDS.items():
            if f"{bundle}_{server}_entries" in found:
                shares = [f"{found[f'{bundle}_{server}_{way}_share']:.2f}" for way in WAYS]
                observed = min(found[f"{bundle}_{server}_{way}_observed"] for way in WAYS)
                rows.append(f"| {bundle}, {words} | {' | '.join(shares)} | {observed:.3f} |")
    head = (
        "| images a second, share of those without a history | Detect | BatchDetect | StreamDetect | seen, at least |"
    )
    return markdown(head, rows, f"* {result['machine']}; commit {result['commit']}; `{result['command']}`")
