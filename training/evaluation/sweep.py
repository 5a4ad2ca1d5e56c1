"""Figures of the attacks in `series`: accuracy at growing changes, and what more computing still gains."""

from collections.abc import Callable, Sequence

import numpy as np

from training.evaluation.bootstrap import draw_weights, share_estimate
from training.evaluation.entries import BUDGETED
from training.evaluation.judging import BROKEN, Attacked, Subject, judge_union, supported
from training.evaluation.records import Convergence, Lengthened, SweepAt, SweepPoint
from training.evaluation.series import ALONE, KNOWING, Series
from training.evaluation.suite import SuiteEntry

__all__ = ["PASSED_AT", "breaks_at", "half", "judge_series", "last_gain", "suspects"]

PASSED_AT = 0.05
"""False-positive rate at which an attack has to pass."""

Attacks = Callable[[SuiteEntry, Subject], Attacked]


def judge_series(
    series: Series, subject: Subject, suite: Sequence[Attacked], attack: Attacks, *, rows: np.ndarray, seed: int
) -> tuple[tuple[SweepPoint, ...], Convergence | None]:
    """Runs the attacks and judges them.

    Args:
        series: what to run.
        subject: all attacked images.
        suite: what the suite made of them; its images count wherever they keep a size.
        attack: runs one.
        rows: positions of the images that the series attacks.
        seed: of the intervals.

    Returns:
        Rising sizes, and what more steps and restarts gain; None where the calibration refuses `PASSED_AT`.
    """
    some = subject.rows(rows, draw_weights(len(rows), seed))
    grown = [attack(entry, some) for entry in series.growing()]
    points = _points(series, some, [*(one.among(rows) for one in suite if one.entry.norm in BUDGETED), *grown])
    if not supported((PASSED_AT,), some.clean.smallest_row):
        return points, None
    kind = series.strongest([(one.entry, float(_passes(some, one).mean())) for one in grown])
    every = np.ones(len(rows), bool)
    lengthened = tuple(
        Lengthened(
            steps=steps,
            restarts=restarts,
            accepted_and_wrong=share_estimate(_passes(some, attack(entry, some)), every, some.weights),
        )
        for entry, (steps, restarts) in zip(series.longer(kind), series.sizes, strict=True)
    )
    return points, Convergence(
        attack=series.title(kind), norm=series.norm, eps=series.eps, alpha=PASSED_AT, rows=lengthened
    )


def half(points: Sequence[SweepPoint], point: SweepPoint) -> SweepPoint | None:
    """The point at half the change; None where there is none."""
    return next((other for other in points if other.share == point.share / 2), None)


def suspects(points: Sequence[SweepPoint], alpha: float) -> list[SweepPoint]:
    """Points whose strict accuracy with rejection lies above the classifier's own at half the change.

    A detector at eps makes a classifier at eps / 2: what lies above the line, beyond its interval, claims a classifier
    that nobody has. Source: Tramèr 2022 (arXiv 2107.11630).
    """
    found = []
    for point in points:
        line, row = half(points, point), _at(point, alpha)
        if line is None or row is None or row.strict.value is None or line.accuracy.interval is None:
            continue
        if row.strict.value > line.accuracy.interval.high:
            found.append(point)
    return found


def breaks_at(points: Sequence[SweepPoint], alpha: float) -> SweepPoint | None:
    """The smallest change within which fewer than a tenth of the images stay right or are rejected."""
    for point in points:
        row = _at(point, alpha)
        if row is not None and (row.robust_accuracy.value or 0.0) < BROKEN:
            return point
    return None


def last_gain(convergence: Convergence) -> float:
    """What the last increase of the steps gained, as a share of the images; 0 for a single length."""
    rates = [row.accepted_and_wrong.value or 0.0 for row in convergence.rows if row.restarts == 1]
    return rates[-1] - rates[-2] if len(rates) > 1 else 0.0


def _at(point: SweepPoint, alpha: float) -> SweepAt | None:
    return next((row for row in point.rejection if row.alpha == alpha), None)


def _points(series: Series, subject: Subject, attacks: Sequence[Attacked]) -> tuple[SweepPoint, ...]:
    aimed = {one.entry.eps: one for one in attacks if one.entry.name.startswith("sweep_pgd_")}
    points = []
    for share in ALONE:
        eps = share * series.eps
        if eps not in aimed:
            continue
        union = judge_union(subject, attacks, series.norm, eps)
        points.append(
            SweepPoint(
                share=share,
                norm=series.norm,
                eps=eps,
                accuracy=union.accuracy,
                alone=share_estimate(
                    aimed[eps].decisions.labels == subject.truth, np.ones(len(subject.truth), bool), subject.weights
                ),
                rejection=tuple(
                    SweepAt(alpha=row.alpha, robust_accuracy=row.robust_accuracy, strict=row.strict)
                    for row in union.rejection
                    if share in KNOWING
                ),
            )
        )
    return tuple(points)


def _passes(subject: Subject, one: Attacked) -> np.ndarray:
    return np.asarray((one.decisions.labels != subject.truth) & ~one.decisions.rejected(PASSED_AT))
