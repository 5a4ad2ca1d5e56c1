"""A server's /metrics as numbers, and what was counted between two readings."""

import urllib.request
from collections import Counter
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["MetricsPage", "read_metrics"]


@dataclass(frozen=True, kw_only=True)
class MetricsPage:
    """One reading."""

    text: str
    series: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(repr=False)
    """By name and labels."""

    def total(self, name: str, **labels: str) -> float:
        """The sum of the series of that name that have these labels among theirs."""
        wanted = set(labels.items())
        return sum(value for (found, of), value in self.series.items() if found == name and wanted <= of)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Sums by the value of one label, without zeros."""
        sums: Counter[str] = Counter()
        for (found, of), value in self.series.items():
            if found == name:
                sums[dict(of).get(label, "")] += value  # type: ignore[assignment]
        return {key: value for key, value in sums.items() if value}

    def since(self, before: "MetricsPage") -> "MetricsPage":
        """What was counted after another reading; gauges become differences, too."""
        series = {key: value - before.series.get(key, 0.0) for key, value in self.series.items()}
        return MetricsPage(text=self.text, series=series)


def read_metrics(address: str) -> MetricsPage:
    """The page at HOST:PORT.

    Raises:
        OSError: nobody answers.
    """
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    series = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return MetricsPage(text=text, series=series)
