"""What `deploy.bench_serving` found for one bundle: as metrics of a result file, and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from deploy.load import Load
from deploy.open_loop import OpenLoad

__all__ = ["ASKED", "Figures", "Tried", "table"]

ASKED: Mapping[str, str] = {
    "stream_ratio_to_session": ">= 0.90",
    "batch_ratio_to_session": ">= 0.90",
    "detect_ratio_to_session": ">= 0.75",
    "detect_rate_to_mlserver": ">= 3.00",
    "constant_p99_to_p50": "<= 3.00",
    "start_s": "<= 2.00",
    "resident_mb": "<= 250",
}
"""The ratios to the session hold for graphs of 1 ms an image or more; docs/results/asked.toml says where."""
SATURATED = 0.9
"""Share of its core from which on the client is what limits."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A way to call a server, over all rounds."""

    text: str
    loads: Sequence[Load]
    """One a round, in a closed loop."""
    ratios: Sequence[float]
    """Of their rates to the bare session's of the same round."""
    start_s: float
    """Of its server."""
    resident_mb: float
    """Of its server, after the loads."""
    rate: float | None = None
    """The highest rate of constant arrivals at which p99 keeps the objective; None where it was not looked for."""

    @property
    def ratio(self) -> float:
        """To the bare session."""
        return median(self.ratios)

    def of_loads(self, field: str) -> float | None:
        """The median of a field of `Load`."""
        values = [getattr(load, field) for load in self.loads]
        return None if None in values else median(values)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One bundle's."""

    max_batch: int
    """Of our server."""
    session_images_per_s: float
    """At its best batch, median of the rounds."""
    session_us: float
    """Processor time for an image."""
    tried: Mapping[str, Tried]
    """`detect` and other ways to call ours, then peers by their names."""
    tails: Mapping[str, OpenLoad]
    """Of Detect at a share of its rate, by the kind of arrivals."""

    def metrics(self, bundle: str) -> dict[str, float]:
        """Flat, each with the bundle's name before it."""
        found: dict[str, float | None] = {
            "session_images_per_s": self.session_images_per_s,
            "session_us": self.session_us,
            "max_batch": self.max_batch,
            "start_s": self.tried["detect"].start_s,
            "resident_mb": self.tried["detect"].resident_mb,
        }
        for name, tried in self.tried.items():
            for field in ("images_per_s", "server_us", "loop_us", "client_us", "client_share", "p50_ms", "p99_ms"):
                found[f"{name}_{field}"] = tried.of_loads(field)
            found[f"{name}_ratio_to_session"] = tried.ratio
            found[f"{name}_graph_share"] = self.session_us / (tried.of_loads("server_us") or 1.0)
            found[f"{name}_rate"] = tried.rate
        found |= self._to_peers()
        for kind, tail in self.tails.items():
            found |= {f"{kind}_p50_ms": tail.p50_ms, f"{kind}_p99_ms": tail.p99_ms, f"{kind}_failed": tail.failed}
            found |= {f"{kind}_p99_to_p50": tail.p99_ms / tail.p50_ms, f"{kind}_late_p99_ms": tail.late_p99_ms}
        return {f"{bundle}_{name}": float(value) for name, value in found.items() if value is not None}

    def _to_peers(self) -> dict[str, float | None]:
        """Our unary calls, of either protocol, and those of gRPC alone, which bound them, beside those of each peer.

        All have one image in a call.
        """
        found: dict[str, float | None] = {}
        for name in ("detect", "infer", "echo"):
            for other in ("mlserver", "kserve"):
                ours, theirs = self.tried.get(name), self.tried.get(other)
                if ours is None or theirs is None:
                    continue
                pairs = zip(ours.ratios, theirs.ratios, strict=True)
                found[f"{name}_images_to_{other}"] = median(a / b for a, b in pairs)
                found[f"{name}_rate_to_{other}"] = ours.rate / theirs.rate if ours.rate and theirs.rate else None
                found[f"{other}_start_s"], found[f"{other}_resident_mb"] = theirs.start_s, theirs.resident_mb
        return found


def table(bundle: str, figures: Figures, objective_ms: float) -> str:
    """Systems down, figures across; below it what was asked."""
    head = (
        f"{'':<44} {'images/s':>9} {'of bare':>8} {'server us':>10} {'client us':>10} {'p50 ms':>8} {'p99 ms':>8} "
        f"{f'/s, p99<{objective_ms:g}':>11} {'start s':>8} {'MB':>6}"
    )
    lines = [
        head,
        f"{bundle + ' bare session':<44} {figures.session_images_per_s:9.0f} {'':>8} {figures.session_us:10.0f}",
    ]
    lines += [_row(bundle, tried) for tried in figures.tried.values()]
    for kind, tail in figures.tails.items():
        lines.append(
            f"{bundle + f' Detect at 70 % load, {kind} arrivals':<44} {'':>9} {'':>8} {tail.server_us:10.0f} {'':>10} "
            f"{tail.p50_ms:8.2f} {tail.p99_ms:8.2f}"
        )
    metrics = figures.metrics(bundle)
    for name, asked in ASKED.items():
        if (value := metrics.get(f"{bundle}_{name}")) is not None:
            lines.append(f"{bundle + ' ' + name:<44} {value:9.2f}   asked {asked}")
    busy = [tried.text for tried in figures.tried.values() if (tried.of_loads("client_share") or 0.0) > SATURATED]
    if busy:
        lines.append(f"{bundle}: the client's core was full, so these are the client's figures: {'; '.join(busy)}")
    return "\n".join(lines)


def _row(bundle: str, tried: Tried) -> str:
    cells = [
        f"{bundle + ' ' + tried.text:<44}",
        _cell(tried.of_loads("images_per_s"), "{:.0f}", 9),
        _cell(tried.ratio, "{:.2f}", 8),
        _cell(tried.of_loads("server_us"), "{:.0f}", 10),
        _cell(tried.of_loads("client_us"), "{:.0f}", 10),
        _cell(tried.of_loads("p50_ms"), "{:.2f}", 8),
        _cell(tried.of_loads("p99_ms"), "{:.2f}", 8),
        _cell(tried.rate, "{:.0f}", 11),
        _cell(tried.start_s, "{:.2f}", 8),
        _cell(tried.resident_mb, "{:.0f}", 6),
    ]
    return " ".join(cells).rstrip()


def _cell(value: float | None, form: str, width: int) -> str:
    return ("" if value is None else form.format(value)).rjust(width)
