"""One page of metrics for several processes: counters and histograms are added, gauges as the table says."""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

__all__ = ["GAUGES", "Merged", "Page", "read_page"]

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""

GAUGES: dict[str, Callable[[Iterable[float]], float]] = {
    "advsentry_model_info": max,
    "advsentry_execution_provider_info": max,
    "advsentry_queue_items": sum,
    "advsentry_queue_bytes": sum,
    "advsentry_inflight": sum,
    "advsentry_ready": min,
    "advsentry_canary_ok": min,
    "advsentry_canary_last_success_timestamp_seconds": min,
    "advsentry_loop_lag_seconds": max,
    "advsentry_tls_certificate_expiry_timestamp_seconds": min,
    "advsentry_calibration_drift": fmean,
    "advsentry_calibration_drift_alarm": max,
    "advsentry_adversarial_share": fmean,
    "advsentry_adversarial_share_alarm": max,
    "advsentry_history_clients": sum,
    "advsentry_history_queue_items": sum,
    "advsentry_history_entries": sum,
    "advsentry_history_bytes": sum,
    "advsentry_history_degraded": max,
}
"""What one gauge of all processes is, of those that have a number; `max` where nothing is said."""


@dataclass(kw_only=True)
class Family:
    """One metric of one process."""

    kind: str
    text: str
    samples: dict[Key, float] = field(default_factory=dict)

    @property
    def is_sum(self) -> bool:
        """Whether it counts, so that it must never fall."""
        return self.kind in ("counter", "histogram")


Page = dict[str, Family]
"""All metrics of one process, by name."""


def read_page(text: str) -> Page:
    """A page in the text format.

    Raises:
        ValueError: it is none.
    """
    page: Page = {}
    for metric in text_string_to_metric_families(text):
        family = page.setdefault(metric.name, Family(kind=metric.type, text=metric.documentation))
        for sample in metric.samples:
            family.samples[sample.name, tuple(sample.labels.items())] = sample.value
    return page


class Merged(Collector):
    """The pages of all processes as one; what the ended ones counted stays counted."""

    def __init__(self, pages: Callable[[], Sequence[Page]]) -> None:
        """Takes where to ask for the pages of those that run."""
        self._pages = pages
        self._ended: Page = {}
        self._lock = threading.Lock()

    def keep(self, take_page: Callable[[], Page]) -> None:
        """Adds what a process counted before it ended, of which `pages` must not tell any more."""
        with self._lock:
            for name, family in take_page().items():
                if family.is_sum:
                    kept = self._ended.setdefault(name, Family(kind=family.kind, text=family.text))
                    for key, value in family.samples.items():
                        kept.samples[key] = kept.samples.get(key, 0.0) + value

    def collect(self) -> Iterator[Metric]:
        """What is exported."""
        with self._lock:
            pages = [*self._pages(), self._ended]
            names = dict.fromkeys(name for page in pages for name in page)
            merged = [_merged(name, [page[name] for page in pages if name in page]) for name in names]
        yield from merged

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering it asks nobody."""
        return iter(())


def _merged(name: str, families: Sequence[Family]) -> Metric:
    first = families[0]
    merge = sum if first.is_sum else GAUGES.get(name, max)
    values: dict[Key, list[float]] = {}
    for family in families:
        for key, value in family.samples.items():
            values.setdefault(key, []).append(value)
    metric = Metric(name, first.text, first.kind)
    for (sample, labels), found in values.items():
        known = [value for value in found if not math.isnan(value)]
        metric.add_sample(sample, dict(labels), merge(known) if known else math.nan)
    return metric
