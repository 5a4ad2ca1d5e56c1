"""What the page says of attackers who know the detectors."""

from training.evaluation.results import Report
from training.evaluation.tables import adaptive_table, availability_table, rate

__all__ = ["adaptive_section", "caveat"]

_NOT_RUN = """These attackers aimed at the classifier and knew nothing of the detectors. Attackers who know of a
detector can often slip past it; that test has not been run on this bundle yet. Read the detection figures as “sees the
traces of known tools”, not as “cannot be fooled”."""

_RUN = """What is said of attacks that are found is about attackers who aimed at the classifier and knew nothing of the
detectors: it sees the traces of known tools, which does not mean that it cannot be fooled."""

_SECTION = """<section><h2>Attackers who know the detectors</h2>
<p>These attacks have everything that is in the bundle, detectors and calibration too, and look for an image that is
read wrongly <em>and</em> accepted. An image that was wrong and accepted before any attack counts.</p>{attacks}
<h3>Attacks on availability</h3>
<p>An attacker may also want good images rejected. Of the images that were named rightly and accepted, the share that
some change of that size gets rejected.</p>{availability}</section>"""


def caveat(report: Report, alpha: float | None) -> str:
    """What the figures do not show, as HTML.

    Args:
        report: of the page.
        alpha: at which the page speaks; None where every one is refused.
    """
    if not report.threat_model.adaptive:
        return _NOT_RUN
    return " ".join([_RUN, _against_those_who_know(report, alpha), "An attack that is not among these may do better."])


def _against_those_who_know(report: Report, alpha: float | None) -> str:
    norm = report.threat_model.norm
    union = next(union for union in report.unions if union.is_adaptive and union.norm == norm)
    safe = [row.robust_accuracy for row in union.rejection if row.alpha == alpha]
    if alpha is None or not safe:
        return ""
    return (
        f"Against those who know them, <strong>{rate(safe[0], interval=False)}</strong> of the images stay right or "
        f"are at least rejected, at {100 * alpha:g} % false alarms."
    )


def adaptive_section(report: Report) -> str:
    """The section on such attackers, as HTML; empty where none was run."""
    if not report.threat_model.adaptive:
        return ""
    return _SECTION.format(attacks=adaptive_table(report), availability=availability_table(report))
