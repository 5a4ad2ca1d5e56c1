"""`report.html`: one page with everything in it, for a reader who has never seen the project."""

import string
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from training.evaluation.bootstrap import Estimate
from training.evaluation.charts import Line, histogram, roc_chart
from training.evaluation.evaluate import Evaluation
from training.evaluation.metrics import roc_points
from training.evaluation.pictures import Example, difference, png_address, spectrum_pair
from training.evaluation.report_adaptive import adaptive_section, caveat
from training.evaluation.report_cards import provenance_card, settings_table, threat_card
from training.evaluation.report_further import (
    convergence_section,
    left_out_section,
    operating_section,
    sanity_section,
    sweep_section,
    uniform_words,
)
from training.evaluation.report_looking import looking_section
from training.evaluation.report_overall import overall_table
from training.evaluation.results import AttackResult, RateAt, Report, UnionResult
from training.evaluation.tables import (
    attack_table,
    auroc_table,
    class_table,
    counted_share,
    false_positive_table,
    rate,
    shift_table,
    union_table,
)
from training.evaluation.verdict import verdict_sentences

__all__ = ["headline_alpha", "page"]

_DRAWN = 10
"""Attacks with a trade-off curve; the style sheet tells no more lines apart."""


def page(report: Report, evaluation: Evaluation) -> str:
    """The whole page; it loads nothing from anywhere."""
    folder = files("training.evaluation")
    template = string.Template((folder / "report.html").read_text(encoding="utf-8"))
    text = template.substitute(
        css=(folder / "report.css").read_text(encoding="utf-8"),
        title=escape(f"How does “{report.bundle.name}” hold up under attack?"),
        subtitle=_subtitle(report),
        banner=_banner(report),
        verdict=_verdict(report),
        summary=_summary(report),
        cards=_cards(report),
        caveat=caveat(report, headline_alpha(report)),
        attacks=attack_table(report),
        overall=overall_table(report.overall),
        operating=operating_section(report),
        adaptive=adaptive_section(report),
        unions=union_table(report),
        convergence=convergence_section(report),
        sweep=sweep_section(report, headline_alpha(report)),
        uniform=uniform_words(report),
        sanity=sanity_section(report),
        left_out=left_out_section(report),
        false_positives=false_positive_table(report.false_positives),
        classes=_classes(report),
        shifts=shift_table(report.shifts),
        shifted_images=report.shifts[0].accuracy.n if report.shifts else 0,
        heat_successful=auroc_table(report.attacks, successful=True),
        heat_all=auroc_table(report.attacks, successful=False),
        detectors=_detectors(report),
        **_curves(report, evaluation),
        histograms=_histograms(report, evaluation),
        examples="".join(_example(plot.example) for plot in evaluation.plots),
        misses=_misses(evaluation.misses),
        looking=looking_section(evaluation.looking),
        threat=threat_card(report),
        settings=settings_table(report),
        provenance=provenance_card(report),
        remarks="".join(f"<li>{escape(remark)}</li>" for remark in report.remarks),
        command=escape(report.provenance.command),
    )
    return text.replace(" %", "\N{NO-BREAK SPACE}%")  # or lines break between number and sign


def headline_alpha(report: Report) -> float | None:
    """The bundle's own alpha where it was measured, else the largest that was; None when every one is refused."""
    measured = [row.alpha for row in report.false_positives if row.images_needed is None]
    if report.bundle.default_alpha in measured:
        return report.bundle.default_alpha
    return max(measured, default=None)


def _subtitle(report: Report) -> str:
    data = report.data
    return escape(
        f"{data.name}, {data.classes} classes, images of {data.height} × {data.width}"
        f"{' in colour' if data.channels == 3 else ' in grey'} · {report.provenance.started[:10]} · "
        f"bundle version {report.bundle.version}, {report.bundle.calibration_id}"
    )


def _banner(report: Report) -> str:
    if report.publishable:
        return ""
    return (
        '<p class="banner"><strong>Quick run: do not quote these figures.</strong> The attacks were cut short, so '
        "everything below looks safer than it is.</p>"
    )


def _verdict(report: Report) -> str:
    return f'<p class="verdict">{" ".join(map(escape, verdict_sentences(report, headline_alpha(report))))}</p>'


def _summary(report: Report) -> str:
    data, union = report.data, _main_union(report)
    tested = (
        f"We took {data.attacked_images} images that the classifier had never seen, changed them on purpose "
        f"with {len(report.attacks)} different attacks so that they would be misread, and asked the shipped bundle two "
        "questions about each: <em>what is it?</em> and <em>has somebody tampered with it?</em>"
    )
    clean = f"Nobody attacking, it names {_plain(report.clean.accuracy)} of {data.test_images} test images rightly."
    worst = (
        f"When every attack within the budget may try ({_budget_words(union.norm, union.eps)}), "
        f"{_plain(union.accuracy)} stay right."
    )
    return f"<p>{tested}</p><p>{clean} {worst} {_detection_words(report)} {_promise_words(report)}</p>"


def _main_union(report: Report) -> UnionResult:
    return [union for union in report.unions if union.norm == report.threat_model.norm][-1]  # the last knows the most


def _budget_words(norm: str, eps: float) -> str:
    if norm == "linf":
        return f"no pixel value changed by more than {eps:.3g} of the range, {255 * eps:.3g} of 255 levels"
    return f"a change of Euclidean length {eps:.3g} at most"


def _plain(estimate: Estimate) -> str:
    return f"<strong>{rate(estimate, interval=False)}</strong>"


def _found_at(attack: AttackResult, alpha: float) -> RateAt:
    return next(row for row in attack.detected if row.alpha == alpha)


def _detection_words(report: Report) -> str:
    alpha = headline_alpha(report)
    if alpha is None:
        return ""
    found = sorted(_successful_rates(report, alpha), key=_share)
    if not found:
        return "No attack succeeded, so there was nothing to find."
    (worst, least), (best, most) = found[0], found[-1]
    price = f"at the price of at most {100 * alpha:g} % false alarms."
    if worst == best:
        return f"Of the attacks that succeed ({escape(best)}) it finds {_plain(most)}, {price}"
    return (
        f"Of the attacks that succeed it finds between {_plain(least)} ({escape(worst)}) and {_plain(most)} "
        f"({escape(best)}), {price}"
    )


def _successful_rates(report: Report, alpha: float) -> list[tuple[str, Estimate]]:
    blind = [attack for attack in report.attacks if not attack.is_adaptive]
    rates = [(attack.title, _found_at(attack, alpha).successful) for attack in blind]
    return [(title, estimate) for title, estimate in rates if estimate.value is not None]


def _share(pair: tuple[str, Estimate]) -> float:
    return pair[1].value or 0.0


def _promise_words(report: Report) -> str:
    alpha = headline_alpha(report)
    row = next((row for row in report.false_positives if row.alpha == alpha), None)
    if row is None or row.count is None:
        return ""
    return (
        f"On untouched images it raised a false alarm in <strong>{counted_share(row.count, row.images)}</strong> "
        f"({row.count} of {row.images}) where at most {100 * row.alpha:g} % was promised."
    )


def _cards(report: Report) -> str:
    union, alpha = _main_union(report), headline_alpha(report)
    cards = [
        ("Right, no attack", rate(report.clean.accuracy, interval=False), "share of clean test images"),
        ("Right, worst attack", rate(union.accuracy, interval=False), "within the budget, per image"),
    ]
    if alpha is not None:
        found = _successful_rates(report, alpha)
        safe = next(row for row in union.rejection if row.alpha == alpha)
        row = next(row for row in report.false_positives if row.alpha == alpha)
        if found:
            title, least = min(found, key=_share)
            note = f"{escape(title)}, successful ones, at {100 * alpha:g} %"
            cards.append(("Least found of an attack", rate(least, interval=False), note))
        cards.append(
            (
                "Not fooled unseen",
                rate(safe.robust_accuracy, interval=False),
                "right, or at least flagged, worst attack",
            )
        )
        cards.append(("False alarms", counted_share(row.count or 0, row.images), f"at most {100 * alpha:g} % promised"))
    return "".join(
        f'<div class="card"><span>{name}</span><b>{value}</b><small>{note}</small></div>' for name, value, note in cards
    )


def _classes(report: Report) -> str:
    if not report.classes:
        return ""
    return (
        f"<h3>The classes with most of them, at {100 * report.bundle.default_alpha:g} %</h3>"
        "<p>Nothing is promised for a single class: an operator whose images are mostly of one class gets the rate of "
        f"that class.</p>{class_table(report.classes)}"
    )


def _detectors(report: Report) -> str:
    rows = [f"<dt>{escape(d.name.replace('_', ' '))}</dt><dd>{escape(d.meaning)}</dd>" for d in report.bundle.detectors]
    rows.append("<dt>fused</dt><dd>all of them together; the verdict is made of this one</dd>")
    return "".join(rows)


def _curves(report: Report, evaluation: Evaluation) -> dict[str, str]:
    lines = []
    blind = [pair for pair in zip(report.attacks, evaluation.plots, strict=True) if not pair[0].is_adaptive]
    least_seen = sorted(blind, key=lambda pair: pair[0].aurocs[-1].all.value or 0.0)[:_DRAWN]
    for number, (attack, plot) in enumerate(pair for pair in blind if pair in least_seen):
        fpr, tpr = roc_points(plot.attacked_scores, evaluation.clean_scores[plot.rows])
        lines.append(Line(title=attack.title, number=number, xs=fpr, ys=tpr))
    legend = "".join(
        f'<li><svg viewBox="0 0 28 8"><path class="line s{line.number}" d="M1 4H27"/></svg>{escape(line.title)}</li>'
        for line in lines
    )
    return {"roc": roc_chart(lines, log=False), "roc_log": roc_chart(lines, log=True), "legend": legend}


def _histograms(report: Report, evaluation: Evaluation) -> str:
    return "".join(
        f"<figure>{histogram(evaluation.clean_p[plot.rows], plot.attacked_p, attack.title)}"
        f"<figcaption>{escape(attack.title)}</figcaption></figure>"
        for attack, plot in zip(report.attacks, evaluation.plots, strict=True)
    )


def _example(example: Example) -> str:
    changed, factor = difference(example.clean, example.attacked)
    before, after = spectrum_pair(example.clean, example.attacked)
    pictures = [
        (example.clean, "before", f"read as <b>{escape(example.clean_label)}</b><br>p = {example.clean_p:.3g}"),
        (example.attacked, "after", f"read as <b>{escape(example.attacked_label)}</b><br>p = {example.attacked_p:.3g}"),
        (changed, "change", f"the change, × {factor:.3g}<br>grey: none"),
        (before, "spectrum before", "frequencies before<br>low in the middle"),
        (after, "spectrum after", "frequencies after<br>same scale"),
    ]
    figures = "".join(
        f'<figure><img src="{png_address(image)}" alt="{escape(example.attack)}: {name}"><figcaption>{caption}'
        "</figcaption></figure>"
        for image, name, caption in pictures
    )
    outcome = "" if example.succeeded else " · this attack did not succeed"
    return (
        f"<h3>{escape(example.attack)} <small>truly {escape(example.truth)}{outcome}</small></h3>"
        f'<div class="row">{figures}</div>'
    )


def _misses(misses: Sequence[Example]) -> str:
    if not misses:
        return ""
    return (
        "<h3>The worst misses</h3><p>Of the images that attackers who know the detectors got wrong and accepted, those "
        f'that looked least suspicious.</p><div class="examples">{"".join(map(_example, misses))}</div>'
    )
