"""Three sentences for whoever decides whether the bundle goes into service."""

from training.evaluation.results import Report
from training.evaluation.summary import breaking_sentence
from training.evaluation.sweep import breaks_at, suspects
from training.evaluation.tables import budget, percent, rate

__all__ = ["rejection_sentence", "verdict_sentences"]


def verdict_sentences(report: Report, alpha: float | None) -> tuple[str, str, str]:
    """On untouched images, on an attacker who knows the detectors, and on where it breaks; plain text.

    Args:
        report: of the page.
        alpha: at which it speaks; None where every one is refused.
    """
    return _untouched(report, alpha), _knowing(report, alpha), _breaking(report, alpha)


def rejection_sentence(report: Report, alpha: float | None) -> str:
    """Where it breaks in spite of rejection, by the sweep; empty without one."""
    if alpha is None or not any(point.rejection for point in report.sweep):
        return ""
    at, point = f"at {100 * alpha:g} % false alarms", breaks_at(report.sweep, alpha)
    if point is not None:
        return f"Within {_size(point.norm, point.eps)} fewer than 10 % of the images stay right or are rejected, {at}."
    last = report.sweep[-1]
    left = [rate(row.robust_accuracy, interval=False) for row in last.rejection if row.alpha == alpha]
    return f"Within {_size(last.norm, last.eps)} {left[0]} stay right or are rejected, {at}." if left else ""


def _untouched(report: Report, alpha: float | None) -> str:
    named = f"It names {rate(report.clean.accuracy, interval=False)} of untouched images rightly"
    row = next((row for row in report.false_positives if row.alpha == alpha), None)
    if row is None or row.rate is None or row.promised_95 is None or row.count is None:
        return f"{named}; it has too few calibration images for any promise on false alarms."
    promise = f"{100 * row.alpha:g} % promised on average"
    if row.count > row.promised_95.high:
        kept = f"more than the {promise}"
    elif row.rate > row.alpha:
        kept = f"within the scatter of one calibration around the {promise}"
    else:
        kept = f"no more than the {promise}"
    return f"{named} and calls {percent(row.rate)} adversarial ({row.count} of {row.images}), {kept}."


def _knowing(report: Report, alpha: float | None) -> str:
    threat = report.threat_model
    found = [one for one in report.unions if one.is_adaptive and one.norm == threat.norm]
    safe = [row.robust_accuracy for one in found for row in one.rejection if row.alpha == alpha]
    if not safe:
        return "Whether an attacker who knows the detectors gets past them was not tested: assume that he does."
    return (
        "Against an attacker who knows the detectors and changes an image by at most "
        f"{_size(threat.norm, threat.eps)}, "
        f"{rate(safe[0], interval=False)} stay right or are rejected; a better attack than these may exist."
    )


def _breaking(report: Report, alpha: float | None) -> str:
    if alpha is not None and suspects(report.sweep, alpha):
        return (
            "Some figures with rejection are better than the classifier’s own at half the change, which nobody has "
            "honestly reached: attack harder before you rely on them."
        )
    return rejection_sentence(report, alpha) or breaking_sentence(report).replace("**", "")


def _size(norm: str, eps: float) -> str:
    return f"L∞ {budget(eps)}" if norm == "linf" else f"L2 {eps:.3g}"
