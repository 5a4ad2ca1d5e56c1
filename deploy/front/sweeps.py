"""Where each shipped bundle breaks, from the reports that they carry."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.detection.bundle import SHIPPED
from training.evaluation.bootstrap import Estimate
from training.evaluation.compare import read_report
from training.evaluation.records import SweepAt, SweepPoint
from training.spelling import budget_words

__all__ = ["ALPHA", "Sweep", "shipped_sweeps"]

ALPHA = 0.05
"""Promised false-positive rate of everything that is said here."""
LARGEST = 2.0
"""Budgets of the largest change that the sweeps have."""
NORMS = {"linf": "L∞", "l2": "L2"}


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One bundle under growing changes, and the attack that needs the smallest change to fool it."""

    bundle: str
    norm: str
    eps: float
    """That the bundle was trained for, pixels in [0, 1]."""
    points: tuple[SweepPoint, ...]
    misread_within: float | None
    """Within which an attack on the classifier alone misreads more than 90 % of the images; None: none does."""

    @property
    def budget(self) -> str:
        """What it was trained for, in words."""
        return f"{NORMS[self.norm]} {budget_words(self.eps)}"

    @property
    def left(self) -> float | None:
        """Share of images that stay right or are rejected within the largest change; None where nobody tried."""
        found = [
            row for point in self.points if point.share == LARGEST for row in point.rejection if row.alpha == ALPHA
        ]
        return found[0].robust_accuracy.value if found else None


def shipped_sweeps(folder: Path = SHIPPED) -> list[Sweep]:
    """Of every shipped bundle that was evaluated with growing changes, by name."""
    return [sweep for path in sorted(folder.iterdir()) if path.is_dir() for sweep in _sweep(read_report(str(path)))]


def _sweep(report: Mapping[str, Any]) -> Iterator[Sweep]:
    if not report["sweep"]:
        return
    norm = report["threat_model"]["norm"]
    needed = [
        attack["breaks_at"]
        for attack in report["attacks"]
        if attack["norm"] == norm
        and not attack["is_adaptive"]
        and attack["images"] == report["data"]["attacked_images"]
        and attack["breaks_at"] is not None
    ]
    yield Sweep(
        bundle=report["bundle"]["name"],
        norm=norm,
        eps=report["threat_model"]["eps"],
        points=tuple(_point(point) for point in report["sweep"]),
        misread_within=min(needed, default=None),
    )


def _point(point: Mapping[str, Any]) -> SweepPoint:
    accuracy = _estimate(point["accuracy"])
    return SweepPoint(
        share=point["share"],
        norm=point["norm"],
        eps=point["eps"],
        accuracy=accuracy,
        alone=_estimate(point["alone"]) if "alone" in point else accuracy,  # reports of before do not tell it
        rejection=tuple(
            SweepAt(
                alpha=row["alpha"],
                robust_accuracy=_estimate(row["robust_accuracy"]),
                strict=_estimate(row["strict"]),
            )
            for row in point["rejection"]
        ),
    )


def _estimate(value: Mapping[str, Any]) -> Estimate:
    return Estimate(value=value["value"], interval=None, n=value["n"])  # neither table nor picture shows intervals
