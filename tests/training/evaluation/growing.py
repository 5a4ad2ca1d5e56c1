"""Made-up points of a sweep."""

from training.evaluation.bootstrap import Estimate
from training.evaluation.metrics import Range
from training.evaluation.records import Convergence, Lengthened, SweepAt, SweepPoint

ALPHA = 0.05


def estimate(value: float, spread: float = 0.05) -> Estimate:
    return Estimate(value=value, interval=Range(low=value - spread, high=value + spread), n=200)


def point(share: float, accuracy: float, robust: float | None = None, strict: float | None = None) -> SweepPoint:
    """One at this share of a budget of 0.1; without attacks that knew the detectors where `robust` is None."""
    at = SweepAt(alpha=ALPHA, robust_accuracy=estimate(robust or 0.0), strict=estimate(strict or robust or 0.0))
    return SweepPoint(
        share=share,
        norm="linf",
        eps=0.1 * share,
        accuracy=estimate(accuracy),
        alone=estimate(accuracy),
        rejection=() if robust is None else (at,),
    )


def convergence(*rates: float) -> Convergence:
    """Rising steps of one restart, then two restarts of the fewest steps that break everything."""
    rows = [
        Lengthened(steps=10 * 3**number, restarts=1, accepted_and_wrong=estimate(rate))
        for number, rate in enumerate(rates)
    ]
    rows.append(Lengthened(steps=10, restarts=2, accepted_and_wrong=estimate(1.0)))
    return Convergence(attack="Selective PGD", norm="linf", eps=0.1, alpha=ALPHA, rows=tuple(rows))


POINTS = (point(0.25, 0.9), point(0.5, 0.8, 0.88), point(1.0, 0.5, 0.7), point(2.0, 0.1, 0.3))
