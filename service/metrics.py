"""Every metric of the service, declared once, on a registry that is passed in.

RPC metrics have the names of go-grpc-prometheus, which stock boards know. Labels are small fixed sets: never a request
id, a peer or anything that a caller wrote. Children are cached, since looking one up costs more than counting.
"""

import math
import threading
import time
from bisect import bisect_left
from collections import Counter as Counted
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

__all__ = ["HistoryMetrics", "Judged", "Metrics", "RpcMetrics", "Work"]

SECONDS = tuple(0.0005 * 2**i for i in range(16))  # to 16 s
CALL_SECONDS = tuple(0.001 * 4**i for i in range(8))  # to 16 s; few, since each method with images has them
P_VALUES = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
BATCH_SIZES = tuple(2**i for i in range(7))  # to 64
DROPPED = ("cancelled", "deadline", "shutdown", "overload")
RELOADS = ("loaded", "refused")
STAGES = ("decode", "queue", "inference", "postprocess")
RPC_LABELS = ("grpc_type", "grpc_service", "grpc_method")


class Bins:
    """The counts of one label's histogram."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Counts one value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def observe_same(self, value: float, count: int) -> None:
        """Counts one value of many."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += count
            self._sum += value * count

    def observe_all(self, values: Sequence[float]) -> None:
        """Counts each of many values."""
        if len(values) == 1:
            self.observe(values[0])
            return
        counts = Counted(map(partial(bisect_left, self._bounds), values))
        with self._lock:
            for place, count in counts.items():
                self._counts[place] += count
            self._sum += sum(values)

    def totals(self) -> tuple[int, float]:
        """How many values, and their sum."""
        with self._lock:
            return sum(self._counts), self._sum

    def at_most(self, bound: float) -> tuple[int, int]:
        """How many values were counted, and how many of them were at most one of the bounds."""
        with self._lock:
            return sum(self._counts), sum(self._counts[: self._bounds.index(bound) + 1])

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by upper bound, and the sum."""
        with self._lock:
            counts, total = list(accumulate(self._counts)), self._sum
        names = [floatToGoString(bound) for bound in (*self._bounds, float("inf"))]  # type: ignore[no-untyped-call]
        return list(zip(names, counts, strict=True)), total


class BulkHistogram(Collector):
    """A histogram of one label that counts a batch's values at once.

    The library's own takes 1.1 us for each value, and each image has five and more.
    """

    def __init__(
        self, name: str, text: str, label: str, bounds: Sequence[float], *, registry: CollectorRegistry
    ) -> None:
        self._name, self._text, self._labelnames, self._bounds = name, text, (label,), bounds
        self._bins: dict[str, Bins] = {}
        registry.register(self)

    def labels(self, value: str) -> Bins:
        """The counts of a label's value, for ever the same object."""
        found = self._bins.get(value)
        return self._bins.setdefault(value, Bins(self._bounds)) if found is None else found

    def known(self) -> dict[str, Bins]:
        """Every label's value until now, and its counts."""
        return dict(self._bins)

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Names it to the registry, which refuses a second of that name."""
        yield HistogramMetricFamily(self._name, self._text, labels=self._labelnames)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What is exported."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labelnames)
        for value, bins in list(self._bins.items()):
            buckets, total = bins.read()
            family.add_metric([value], buckets, total)
        yield family


class Work:
    """What the graph did, in figures that no metric holds: Triton's statistics ask for them.

    Attributes:
        failed: images without a detection.
        last_s: Unix time at the end of the last run; 0 before the first.
    """

    def __init__(self) -> None:
        self.failed = 0
        self.last_s = 0.0
        self.runs: dict[int, tuple[int, float]] = {}
        """How many runs, and their seconds, by images in one."""

    def ran(self, size: int, took_s: float) -> None:
        """Counts a run of the graph."""
        count, total_s = self.runs.get(size, (0, 0.0))
        self.runs[size] = (count + 1, total_s + took_s)
        self.last_s = time.time()


@dataclass
class Judged:
    """Sums over all verdicts, which the drift alarms compare."""

    images: int = 0
    adversarial: int = 0
    expected: float = 0.0
    """Sum of alpha: how many would be adversarial if all were clean."""


class Arrivals:
    """How many calls have begun, and how many messages of calls of one have come; plain, since the queue asks often.

    Attributes:
        count: both together.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class RpcMetrics:
    """Counts of one method."""

    def __init__(
        self, family: "RpcFamily", labels: tuple[str, str, str], requests: Counter | None, *, is_timed: bool
    ) -> None:
        self._handled = lru_cache(maxsize=None)(partial(family.handled.labels, *labels))
        self._requests = None if requests is None else lru_cache(maxsize=None)(requests.labels)
        self.started = family.started.labels(*labels)
        self.received = family.received.labels(*labels)
        self.sent = family.sent.labels(*labels)
        self._seconds = family.seconds.labels(*labels) if is_timed else None
        self._arrivals = family.arrivals

    def begun(self) -> None:
        """Counts a call that has come."""
        self.started.inc()
        self._arrivals.count += 1

    def came(self) -> None:
        """Counts the one message of a call that is no stream."""
        self.received.inc()
        self._arrivals.count += 1

    def handled(self, code: str) -> None:
        """Counts a call that ended with a status such as `OK`."""
        self._handled(code).inc()
        if self._requests is not None:
            self._requests(code).inc()

    def took(self, seconds: float) -> None:
        """Counts the time of a call, where a histogram is kept of the method."""
        if self._seconds is not None:
            self._seconds.observe(seconds)


class RpcFamily:
    """The five metrics of go-grpc-prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.arrivals = Arrivals()
        self.started = Counter("grpc_server_started", "Calls begun.", RPC_LABELS, registry=registry)
        self.handled = Counter(
            "grpc_server_handled", "Calls ended, by status.", (*RPC_LABELS, "grpc_code"), registry=registry
        )
        self.received = Counter("grpc_server_msg_received", "Messages received.", RPC_LABELS, registry=registry)
        self.sent = Counter("grpc_server_msg_sent", "Messages sent.", RPC_LABELS, registry=registry)
        self.seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time of a call with images.",
            RPC_LABELS,
            buckets=CALL_SECONDS,
            registry=registry,
        )


class HistoryMetrics:
    """What a query history counts; no series names a client."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"advsentry_history_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"advsentry_history_{name}", text, labels, registry=registry)

        queries = counter("queries", "Images answered while the history is on, by whether it saw them.", "outcome")
        self.observed, self.unobserved = queries.labels("observed"), queries.labels("unobserved")
        self.seconds = counter("seconds", "Time that it took to observe them.")
        flags = counter("flags", "Images that the history takes for steps of a search.", "scope")
        self.flags = {scope: flags.labels(scope) for scope in ("own", "everyone")}
        self.late = counter("late", "Images answered before they were observed, though the answer waited.")
        clients = gauge("clients", "Clients and nobody's components with flags, and those cut off.", "state")
        self.clients = {state: clients.labels(state) for state in ("watched", "cut_off")}
        self.queue_items = gauge("queue_items", "Images waiting to be observed.")
        self.entries = gauge("entries", "Queries that the history keeps.")
        self.size_bytes = gauge("bytes", "Bytes that it holds.")
        self.degraded = gauge("degraded", "1 while it sees less than it should.")

    def hide(self) -> None:
        """Has the gauges say that there is no history."""
        for gauge in (self.queue_items, self.entries, self.size_bytes, self.degraded, *self.clients.values()):
            gauge.set_function(lambda: 0.0)


class Metrics:
    """The service's metrics.

    P-values are counted exactly, before any rounding: on clean traffic they are uniform, so their histogram shows
    drift.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"advsentry_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"advsentry_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Iterable[float]) -> Histogram:
            return Histogram(f"advsentry_{name}", text, buckets=tuple(buckets), registry=registry)

        def bulk_histogram(name: str, text: str, bounds: Sequence[float], label: str) -> BulkHistogram:
            return BulkHistogram(f"advsentry_{name}", text, label, bounds, registry=registry)

        self.registry = registry
        self.work = Work()
        self._rpc = RpcFamily(registry)
        self.arrivals = self._rpc.arrivals
        self._requests = counter("requests", "Calls of the detection services ended, by status.", "code")
        images = counter("images", "Images answered, by outcome.", "outcome")
        self.images_detected, self.images_failed = images.labels("detected"), images.labels("error")
        self._image_errors = counter("image_errors", "Images without a detection.", "reason")
        self._verdicts = counter("verdicts", "Verdicts given.", "verdict")
        self._flagged = counter("flagged", "Detectors that fired.", "reason")
        self._p_values = bulk_histogram("detector_p_value", "Exact p-values.", P_VALUES, "detector")
        stages = bulk_histogram("stage_seconds", "Time of one image in a stage.", SECONDS, "stage")
        self.stage = {name: stages.labels(name) for name in STAGES}
        self.batch_size = histogram("batch_size", "Images in one run of the graph.", BATCH_SIZES)
        dropped = counter("dropped", "Images that did not run: turned away, or gone while they waited.", "reason")
        self.dropped = {reason: dropped.labels(reason) for reason in DROPPED}
        self.model_info = gauge("model_info", "1, of the bundle served.", "version", "graph_sha", "calibration_id")
        self.provider_info = gauge(
            "execution_provider_info", "1, of what was asked for and what runs the graph.", "device", "provider"
        )
        self.queue_items = gauge("queue_items", "Images waiting.")
        self.queue_bytes = gauge("queue_bytes", "Bytes of the images waiting.")
        self.inflight = gauge("inflight", "Images in the graph now.")
        self.ready = gauge("ready", "1 when new calls are served.")
        self.canary_ok = gauge("canary_ok", "1 when the last canary was answered rightly.")
        self.canary_success = gauge("canary_last_success_timestamp_seconds", "Unix time of the last good canary.")
        self.loop_lag = gauge("loop_lag_seconds", "How late the event loop last woke.")
        self.access_log_dropped = counter("access_log_dropped", "Lines of the access log that were lost.")
        reloads = counter("reloads", "Reloads of the bundle, by outcome.", "outcome")
        self.reloads = {outcome: reloads.labels(outcome) for outcome in RELOADS}
        self.worker_restarts = counter("worker_restarts", "Ends of the worker that were not asked for.")
        self.tls_expiry = gauge(
            "tls_certificate_expiry_timestamp_seconds", "Unix time at which the certificate ends; NaN without TLS."
        )
        self.tls_expiry.set(math.nan)
        self.drift = gauge(
            "calibration_drift", "Share of p-values of at most 0.1 over an hour; NaN below 1000 images.", "detector"
        )
        self.drift_alarm = gauge(
            "calibration_drift_alarm", "1 while that share is not that of clean images.", "detector"
        )
        self.adversarial_share = gauge(
            "adversarial_share", "Share of adversarial verdicts over 10 minutes; NaN without images."
        )
        self.adversarial_share.set(math.nan)
        self.adversarial_alarm = gauge(
            "adversarial_share_alarm", "1 while far more images are adversarial than target_fpr lets expect."
        )
        self.history = HistoryMetrics(registry)
        self.judged = Judged()
        self.rpc = lru_cache(maxsize=None)(self._rpc_metrics)
        self.p_value = self._p_values.labels
        self.p_values = self._p_values.known
        self.verdict = lru_cache(maxsize=None)(self._verdicts.labels)
        self.flag = lru_cache(maxsize=None)(self._flagged.labels)
        self.image_error = lru_cache(maxsize=None)(self._image_errors.labels)

    def _rpc_metrics(self, kind: str, service: str, method: str, is_timed: bool) -> RpcMetrics:
        """Args: is_timed is whether times are counted, in 11 series: for the methods that take images, of the 18."""
        is_ours = "." in service and not service.startswith("grpc.")  # neither health nor reflection nor `unknown`
        requests = self._requests if is_ours else None
        return RpcMetrics(self._rpc, (kind, service, method), requests, is_timed=is_timed)
