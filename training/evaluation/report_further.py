"""The sections of the page on what `records` holds."""

from collections.abc import Sequence
from html import escape

import numpy as np

from training.evaluation.charts import Line, share_chart
from training.evaluation.records import SweepPoint
from training.evaluation.results import AttackResult, RateAt, Report
from training.evaluation.sweep import half, suspects
from training.evaluation.tables import percent, rate, size, table

__all__ = [
    "BUDGETS",
    "convergence_section",
    "cost_rows",
    "left_out_section",
    "operating_section",
    "sanity_section",
    "sweep_lines",
    "sweep_section",
    "uniform_words",
]

BUDGETS = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Ticks of a sweep."""
_NONE = '<span class="none">none</span>'


def operating_section(report: Report) -> str:
    """What every attack comes to at each false-positive rate, beside the areas under the start of its curve."""
    alphas = [row.alpha for row in report.false_positives]
    partial = list(report.attacks[0].partial_aurocs) if report.attacks else []
    head = [
        "Attack",
        "Images<small>successful, failed, wrong before</small>",
        *(f"Found, of all, at {100 * alpha:g} %" for alpha in alphas),
        *(f"Accepted and wrong at {100 * alpha:g} %" for alpha in alphas),
        *(f"pAUC up to {100 * float(largest):g} %<small>a coin: {float(largest) / 2:g}</small>" for largest in partial),
    ]
    rows = ([escape(one.title), _counts(one), *_at_rates(one, alphas), *_areas(one)] for one in report.attacks)
    return (
        "<details><summary>Every operating point, and how many images each figure rests on</summary>"
        "<p>By the bundle’s own verdict. pAUC is the mean true-positive rate over the false-positive rates up to "
        "that one, "
        f"not rescaled, over all attacked images.</p>{table(head, rows, kind='attacks')}</details>"
    )


def _counts(one: AttackResult) -> str:
    return f"{one.images}<small>{one.successful}, {one.failed}, {one.wrong_before}</small>"


def _at_rates(one: AttackResult, alphas: list[float]) -> list[str]:
    def shown(rows: tuple[RateAt, ...], alpha: float) -> str:
        found = next((row for row in rows if row.alpha == alpha), None)
        return '<span class="none">refused</span>' if found is None else rate(found.all)

    return [shown(rows, alpha) for rows in (one.detected, one.accepted_and_wrong) for alpha in alphas]


def _areas(one: AttackResult) -> list[str]:
    return [_NONE if value is None else f"{value:.3f}" for value in one.partial_aurocs.values()]


def uniform_words(report: Report) -> str:
    """Whether p-values of clean test images are uniform, as a table under its heading."""
    rows = (
        [
            escape(row.detector.replace("_", " ")),
            f"{row.distance:.3f}",
            f"{row.bound:.3f}<small>{row.calibration_images} and {row.images} images</small>",
            '<span class="bad">✗ beyond</span>' if row.is_beyond else '<span class="good">✓ within</span>',
        ]
        for row in report.uniformity
    )
    return (
        "<h3>Are the p-values of clean images uniform?</h3><p>The promise rests on it at every rate at once. The "
        "distance "
        "is the largest gap between the distribution of the p-values and the diagonal; where calibration and "
        "test images "
        "are alike it passes the bound once in a thousand times.</p>"
        + table(["Detector", "Distance", "Bound", ""], rows)
    )


def sanity_section(report: Report) -> str:
    """The checks that the evaluation made of itself; those that failed come first, and are said to spoil the rest."""
    failed = [check for check in report.sanity if not check.passed]
    rows = (
        [
            escape(check.name),
            '<span class="good">✓ passed</span>' if check.passed else '<span class="bad">✗ failed</span>',
            escape(check.words),
        ]
        for check in sorted(report.sanity, key=lambda check: check.passed)
    )
    spoilt = "<p><strong>Robustness is not established:</strong> a check failed.</p>" if failed else ""
    return f"<h3>Do the attacks do what they can?</h3>{spoilt}{table(['Check', '', 'Found'], rows)}"


def left_out_section(report: Report) -> str:
    """What each detector adds; empty where it could not be told."""
    if not report.left_out:
        return ""
    alpha = report.bundle.default_alpha
    head = [
        "Left out",
        "Mean AUROC, all",
        "Mean AUROC, successful",
        "Worst attack",
        "Mean found at 5 %",
        f"False alarms at {100 * alpha:g} %",
    ]
    rows = (
        [
            "nothing" if row.detector is None else escape(row.detector.replace("_", " ")),
            _area(row.mean_auroc_all),
            _area(row.mean_auroc_successful),
            f"{_area(row.worst_auroc)}<small>{escape(row.worst_attack or '')}</small>",
            _NONE if row.found is None else percent(row.found),
            '<span class="none">refused</span>' if row.false_positive_rate is None else rate(row.false_positive_rate),
        ]
        for row in report.left_out
    )
    return (
        "<h3>What each detector adds</h3><p>The fused score without one of them, calibrated again on the images of the "
        "second calibration split, under the attacks that saw no detector. Attacks that knew the detectors were "
        "aimed at "
        f"all of them together: of a bundle without one they say nothing.</p>{table(head, rows)}"
    )


def _area(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def sweep_section(report: Report, alpha: float | None) -> str:
    """Accuracy at growing changes, with the line that a detector cannot honestly pass; empty without a sweep."""
    points = report.sweep
    if not points or alpha is None:
        return ""
    suspect = {point.share for point in suspects(points, alpha)}
    head = ["Largest change", "Right, classifier alone", "… at half the change"]
    head += [f"Right or rejected at {100 * alpha:g} %", "strict"]
    rows = ([_size_of(point), rate(point.accuracy), *_row(points, point, alpha, suspect)] for point in points)
    return (
        f"<section><h2>Growing changes</h2><p>On {points[0].accuracy.n} of the images, the worst case over every "
        "attack "
        "that keeps to each size. A detector that holds at some size makes a (slow) classifier that holds at "
        "half of it: "
        "where “strict”, which counts clean images that are rejected as lost, lies above the dashed line, doubt the "
        f"attacks before you believe the detector.</p>{_chart(points, alpha)}{table(head, rows)}</section>"
    )


def _size_of(point: SweepPoint) -> str:
    return f'{size(point.norm, point.eps)}<small class="what">{point.share:g} of the budget</small>'


def _row(points: tuple[SweepPoint, ...], point: SweepPoint, alpha: float, suspect: set[float]) -> list[str]:
    line, at = half(points, point), next((row for row in point.rejection if row.alpha == alpha), None)
    strict = _NONE if at is None else rate(at.strict)
    if point.share in suspect:
        strict = f'<span class="loud">{strict}<small>suspect</small></span>'
    return [
        _NONE if line is None else rate(line.accuracy, interval=False),
        _NONE if at is None else rate(at.robust_accuracy),
        strict,
    ]


def sweep_lines(points: Sequence[SweepPoint], alpha: float) -> list[Line]:
    """The curves of a sweep over the change in budgets: strict, with rejection, without, and without at its half."""
    knowing = [(point, row) for point in points for row in point.rejection if row.alpha == alpha]
    halves = [(point, line) for point in points if (line := half(points, point))]
    curves = [
        ("right or rejected, strict", [(p.share, row.strict.value) for p, row in knowing], 0),
        (
            "right or rejected",
            [(p.share, row.robust_accuracy.value) for p, row in knowing],
            9,
        ),  # dotted, over the other
        ("classifier alone", [(p.share, p.accuracy.value) for p in points], 2),
        ("classifier alone at half the change", [(p.share, line.accuracy.value) for p, line in halves], 5),
    ]
    return [
        Line(
            title=title,
            number=number,
            xs=np.array([x for x, _ in pairs]),
            ys=np.array([y or 0.0 for _, y in pairs]),
        )
        for title, pairs, number in curves
        if pairs
    ]


def _chart(points: tuple[SweepPoint, ...], alpha: float) -> str:
    lines = sweep_lines(points, alpha)
    legend = "".join(
        f'<li><svg viewBox="0 0 28 8"><path class="line s{line.number}" d="M1 4H27"/></svg>{line.title}</li>'
        for line in lines
    )
    chart = share_chart(lines, BUDGETS, "change, in budgets", "share of images")
    return f'<ul class="legend">{legend}</ul><div class="charts single"><figure>{chart}</figure></div>'


def convergence_section(report: Report) -> str:
    """What more steps and restarts still gain; empty where it was not measured."""
    found = report.convergence
    if found is None:
        return ""
    head = ["Steps", "Restarts", f"Wrong and accepted at {100 * found.alpha:g} %"]
    rows = ([str(row.steps), str(row.restarts), rate(row.accepted_and_wrong)] for row in found.rows)
    return (
        f"<h3>Had the attacks come to their end?</h3><p>{escape(found.attack)}, the strongest of the attacks on "
        "growing "
        f"changes, with ever more steps and restarts on {found.rows[0].accepted_and_wrong.n} of the images. Where "
        "the last "
        f"rows still rise, more computing breaks more.</p>{table(head, rows)}"
    )


def cost_rows(report: Report) -> list[tuple[str, str]]:
    """What an answer costs, for a table of names and values."""
    cost = report.cost
    if cost is None:
        return []
    passes = "" if cost.passes is None else f", {cost.passes} pass{'' if cost.passes == 1 else 'es'} of the classifier"
    return [
        (
            "Cost, one core",
            f"{cost.single_ms:.2f} ms for an image alone, {cost.batched_ms:.2f} ms an image in batches of "
            f"{cost.batch}, "
            f"on {cost.processor}",
        ),
        ("Graph", f"{cost.graph_mb:.2f} MB{passes}"),
    ]
