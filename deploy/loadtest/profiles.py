"""How many calls come when."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deploy.open_loop import Arrivals, arrivals
from service.detection.types import Float64s, Integers

__all__ = ["PROFILES", "Phase", "due", "phases"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A time in which calls come at one rate."""

    name: str
    """Unique in its profile; part of the names of its figures."""
    rate: float
    """Calls a second."""
    seconds: float


PROFILES: dict[str, Sequence[tuple[str, float, float]]] = {
    "constant": (("0.7", 0.7, 3.0),),
    "steps": tuple((f"{share:g}", share, 1.0) for share in (0.25, 0.5, 0.75, 0.9, 1.0, 1.2)),
    "burst": (("before", 0.5, 1.0), ("burst", 5.0, 0.5), ("after", 0.5, 1.5)),
}
"""Phases by profile: name, share of the server's capacity, and share of the seconds that were asked for."""


def phases(profile: str, capacity: float, seconds: float) -> list[Phase]:
    """Those of a profile.

    Args:
        capacity: calls a second, which stand for 1.
        seconds: that stand for 1.
    """
    return [
        Phase(name=name, rate=share * capacity, seconds=length * seconds) for name, share, length in PROFILES[profile]
    ]


def due(plan: Sequence[Phase], kind: Arrivals, seed: int) -> tuple[Float64s, Integers]:
    """When each call is due, in seconds from the start, rising, and the number of its phase; both (N,)."""
    moments, numbers, start = [], [], 0.0
    for number, phase in enumerate(plan):
        inside = arrivals(kind, phase.rate, phase.seconds, seed + number)
        inside = inside[inside < phase.seconds]
        moments.append(start + inside)
        numbers.append(np.full(len(inside), number, np.int64))
        start += phase.seconds
    return np.concatenate(moments), np.concatenate(numbers)
