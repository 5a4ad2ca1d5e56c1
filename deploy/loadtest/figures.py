"""What a load test measured, phase by phase, as figures and as a table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.loadtest.profiles import Phase
from deploy.loadtest.sending import Sent
from service.detection.types import Bools, Integers

__all__ = ["PhaseFigures", "figures", "flat", "table"]

REFUSED, SHED = "RESOURCE_EXHAUSTED", "CANCELLED"
COLUMNS = (
    ("calls/s", "offered_per_s", ".0f"),
    ("ok/s", "answered_per_s", ".0f"),
    ("refused", "refused_share", ".1%"),
    ("shed", "shed_share", ".1%"),
    ("failed", "failed_share", ".1%"),
    ("p50 ms", "p50_ms", ".1f"),
    ("p90 ms", "p90_ms", ".1f"),
    ("p99 ms", "p99_ms", ".1f"),
    ("p99.9 ms", "p999_ms", ".1f"),
    ("max ms", "max_ms", ".1f"),
    ("queue p95", "queue_p95_ms", ".1f"),
    ("late p99", "late_p99_ms", ".1f"),
)


@dataclass(frozen=True, kw_only=True)
class PhaseFigures:
    """One phase; latencies are of answered calls, from when they were due, and 0 where none was answered."""

    offered_per_s: float
    answered_per_s: float
    refused_share: float
    """With RESOURCE_EXHAUSTED, which says when to come back."""
    shed_share: float
    """With CANCELLED, by the server's gRPC: too many waited to be taken."""
    failed_share: float
    """With any other status."""
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    queue_p95_ms: float
    """What images waited, as the server says."""
    late_p99_ms: float
    """How late the client was; near p99 the latencies are the client's."""


def figures(sent: Sent, numbers: Integers, plan: Sequence[Phase]) -> list[PhaseFigures]:
    """Those of each phase.

    Args:
        numbers: (N,) the phase of each call.
    """
    codes = np.array(sent.codes)
    return [_phase(sent, codes, numbers == number, phase) for number, phase in enumerate(plan)]


def _phase(sent: Sent, codes: NDArray[np.str_], chosen: Bools, phase: Phase) -> PhaseFigures:
    calls = max(1, int(chosen.sum()))
    is_ok = chosen & (codes == "OK")
    is_refused, is_shed = chosen & (codes == REFUSED), chosen & (codes == SHED)
    latencies = sent.latency_ms[is_ok] if is_ok.any() else np.zeros(1)
    waits = sent.queue_ms[is_ok] if is_ok.any() else np.zeros(1)
    p50, p90, p99, p999, most = np.percentile(latencies, [50, 90, 99, 99.9, 100]).tolist()
    return PhaseFigures(
        offered_per_s=int(chosen.sum()) / phase.seconds,
        answered_per_s=int(is_ok.sum()) / phase.seconds,
        refused_share=int(is_refused.sum()) / calls,
        shed_share=int(is_shed.sum()) / calls,
        failed_share=int((chosen & ~is_ok & ~is_refused & ~is_shed).sum()) / calls,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        p999_ms=p999,
        max_ms=most,
        queue_p95_ms=float(np.percentile(waits, 95)),
        late_p99_ms=float(np.percentile(sent.late_ms[chosen], 99)) if chosen.any() else 0.0,
    )


def flat(profile: str, plan: Sequence[Phase], found: Sequence[PhaseFigures]) -> dict[str, float]:
    """By names such as `steps_0.9_p99_ms`."""
    return {
        f"{profile}_{phase.name}_{name}": value
        for phase, one in zip(plan, found, strict=True)
        for name, value in asdict(one).items()
    }


def table(profile: str, plan: Sequence[Phase], found: Sequence[PhaseFigures]) -> str:
    """For people: one line a phase."""
    width = max(len(f"{profile} {phase.name}") for phase in plan)
    lines = [" ".join([" " * width, *(f"{title:>9}" for title, _, _ in COLUMNS)])]
    for phase, one in zip(plan, found, strict=True):
        values = asdict(one)
        cells = [f"{format(values[name], form):>9}" for _, name, form in COLUMNS]
        lines.append(" ".join([f"{profile} {phase.name}".ljust(width), *cells]))
    return "\n".join(lines)
