"""The tables of the page, as HTML."""

from collections.abc import Iterable, Sequence
from html import escape

from training.evaluation.bootstrap import Estimate
from training.evaluation.metrics import Range
from training.evaluation.results import (
    AttackResult,
    ClassAlarms,
    DetectorAuroc,
    FalsePositives,
    RateAt,
    Report,
    ShiftResult,
    UnionResult,
)

__all__ = [
    "adaptive_table",
    "attack_table",
    "auroc_table",
    "availability_table",
    "budget",
    "class_table",
    "counted_share",
    "false_positive_table",
    "percent",
    "rate",
    "shift_table",
    "size",
    "table",
    "union_table",
]

_SHOWN_ALPHAS = (0.001, 0.01, 0.05)
_FEW = 100
"""A rate over fewer images is shown as a fraction."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "", last_apart: bool = False) -> str:
    """A table that scrolls sideways on a narrow screen; the cells are HTML, each row's first is its heading.

    Args:
        kind: CSS class of the table.
        last_apart: whether the last row is set off, being the headline.
    """
    body = [f'<tr><th scope="row">{first}</th>{"".join(_cell(cell) for cell in rest)}</tr>' for first, *rest in rows]
    if last_apart and body:
        body[-1] = body[-1].replace("<tr>", '<tr class="headline">', 1)
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(content: str) -> str:
    return content if content.startswith("<td") else f"<td>{content}</td>"


def percent(value: float) -> str:
    """0.0123 as "1.23 %", with no more digits than needed."""
    return f"{100 * value:.1f} %" if value >= 0.1 or value == 0 else f"{100 * value:.3g} %"


def budget(value: float) -> str:
    """A change of pixel values in [0, 1], with its size in 8-bit levels."""
    return f"{value:.3g} ({255 * value:.3g}/255)"


def counted_share(count: int, images: int) -> str:
    """A share in percent, or as a fraction when it rests on few images."""
    return f"{count} of {images}" if images < _FEW else percent(count / images)


def rate(estimate: Estimate, *, interval: bool = True) -> str:
    """A share as HTML: in percent with its interval, or as a fraction when it rests on few images."""
    if estimate.value is None:
        return '<span class="none">none</span>'
    if estimate.n < _FEW:
        return f"{round(estimate.value * estimate.n)} of {estimate.n}"
    return f"{100 * estimate.value:.1f} %" + (_small_interval(estimate.interval, 100, 1) if interval else "")


def _small_interval(interval: Range | None, factor: float, digits: int) -> str:
    if interval is None:
        return ""
    return f"<small>{factor * interval.low:.{digits}f}–{factor * interval.high:.{digits}f}</small>"


def attack_table(report: Report) -> str:
    """One row an attack: what it did to the classifier, and how much of it is seen."""
    refused = {row.alpha: row.images_needed for row in report.false_positives if row.images_needed}
    head = [
        "Attack",
        "Budget",
        "Succeeds",
        "Still right",
        "Median change",
        "AUROC, all",
        "AUROC, successful",
        *(f"Found at {100 * alpha:g} %{_need(refused.get(alpha))}" for alpha in _SHOWN_ALPHAS),
    ]
    rows = (_attack_row(attack, report) for attack in report.attacks if not attack.is_adaptive)
    return table(head, rows, kind="attacks")


def adaptive_table(report: Report) -> str:
    """One row an attack that knew the detectors: how often it got a wrong answer accepted."""
    known = [attack for attack in report.attacks if attack.is_adaptive]
    alphas = [row.alpha for row in known[0].accepted_and_wrong] if known else []
    head = [
        "Attack",
        "Budget",
        "Wrong",
        *(f"Wrong and accepted at {100 * alpha:g} %" for alpha in alphas),
        "AUROC, all",
    ]
    return table(head, (_adaptive_row(attack) for attack in known), kind="attacks")


def _adaptive_row(attack: AttackResult) -> list[str]:
    return [
        f'{escape(attack.title)}<small class="what">{escape(attack.description)}</small>',
        size(attack.norm, attack.eps or 0.0),
        rate(_rest(attack.accuracy), interval=False),
        *(rate(row.all) for row in attack.accepted_and_wrong),
        _area(attack.aurocs[-1].all),
    ]


def _rest(estimate: Estimate) -> Estimate:
    """The share of all others; its interval is not asked for."""
    value = None if estimate.value is None else 1 - estimate.value
    return Estimate(value=value, interval=None, n=estimate.n)


def availability_table(report: Report) -> str:
    """Share of good images that an attacker gets rejected, a row a change."""
    alphas = [row.alpha for row in report.availability[0].rejected] if report.availability else []
    head = ["Largest change", *(f"Rejected at {100 * alpha:g} %" for alpha in alphas)]
    rows = ([size(one.norm, one.eps), *(rate(row.rate) for row in one.rejected)] for one in report.availability)
    return table(head, rows)


def _need(images: int | None) -> str:
    return "" if images is None else f"<small>would need {images} calibration images</small>"


def _attack_row(attack: AttackResult, report: Report) -> list[str]:
    fused = attack.aurocs[-1]
    found = {row.alpha: row for row in attack.detected}
    some = f"<small>on {attack.images} images</small>" if attack.images < report.data.attacked_images else ""
    smallest = _KINDS.get(attack.norm, "smallest<br>that fools")
    return [
        f'{escape(attack.title)}{some}<small class="what">{escape(attack.description)}</small>',
        smallest if attack.eps is None else size(attack.norm, attack.eps),
        rate(attack.success_rate),
        rate(attack.accuracy),
        _median_change(attack),
        _area(fused.all),
        _area(fused.successful),
        *(_found(found.get(alpha)) for alpha in _SHOWN_ALPHAS),
    ]


_KINDS = {"l0": "few pixels", "patch": "one square", "spatial": "no value"}
"""What changes under attacks of a kind without a budget."""


def size(norm: str, eps: float) -> str:
    """A change in its norm, as HTML."""
    return f"L∞ {eps:.3g}<small>{255 * eps:.3g}/255</small>" if norm == "linf" else f"L2 {eps:.3g}"


def _median_change(attack: AttackResult) -> str:
    if attack.median_l2 is None or attack.median_linf is None:
        return '<span class="none">none</span>'
    return f"L2 {attack.median_l2:.3g}<small>L∞ {255 * attack.median_linf:.3g}/255</small>"


def _area(estimate: Estimate) -> str:
    if estimate.value is None:
        return '<span class="none">none</span>'
    return f"{estimate.value:.3f}{_small_interval(estimate.interval, 1, 2)}"


def _found(row: RateAt | None) -> str:
    if row is None:
        return '<span class="none">refused</span>'
    return f"{rate(row.successful)}<small>of all: {rate(row.all, interval=False)}</small>"


def union_table(report: Report) -> str:
    """The worst case of each image, a row a norm and what the attackers knew."""
    alphas = [row.alpha for row in report.unions[0].rejection] if report.unions else []
    head = ["Largest change allowed", "Broken images", "Right whatever the attack"]
    head += [f"Safe with rejection at {100 * alpha:g} %" for alpha in alphas]
    return table(head, (_union_row(union) for union in report.unions))


def _union_row(union: UnionResult) -> list[str]:
    others = "all, detectors known" if union.is_adaptive else ", ".join(union.attacks)
    safe = [
        f'{rate(row.robust_accuracy)}<small class="what">strict: {rate(row.strict, interval=False)}</small>'
        for row in union.rejection
    ]
    return [
        f'{size(union.norm, union.eps)}<small class="what">{escape(others)}</small>',
        rate(union.success_rate),
        rate(union.accuracy),
        *safe,
    ]


def false_positive_table(rows: Sequence[FalsePositives]) -> str:
    """Promised against measured."""
    head = [
        "Promised at most",
        "Measured",
        "False alarms",
        "95 % of draws, if exactly kept",
        "with calibration luck",
        "",
    ]
    return table(head, (_false_positive_row(row) for row in rows))


def _false_positive_row(row: FalsePositives) -> list[str]:
    if row.rate is None or row.binomial_95 is None or row.promised_95 is None:
        return [f"{100 * row.alpha:g} %", '<td colspan="5" class="none">' + _refusal(row) + "</td>"]
    ranges = [f"{one.low:.0f}–{one.high:.0f}" for one in (row.binomial_95, row.promised_95)]
    return [
        f"{100 * row.alpha:g} %",
        counted_share(row.count or 0, row.images),
        f"{row.count} of {row.images}",
        *ranges,
        _kept(row),
    ]


def _refusal(row: FalsePositives) -> str:
    return f"refused: a promise this small needs {row.images_needed} calibration images, the bundle has fewer"


def _kept(row: FalsePositives) -> str:
    assert row.count is not None
    assert row.promised_95 is not None
    if row.inside_binomial:
        return '<span class="good">✓ as promised</span>'
    if row.count < row.promised_95.low or (row.inside_promised and row.count < row.alpha * row.images):
        return '<span class="good">✓ fewer than promised</span>'
    if row.inside_promised:
        return '<span class="fair">within the luck of calibration</span>'
    return '<span class="bad">✗ more than promised</span>'


def shift_table(rows: Sequence[ShiftResult]) -> str:
    """Accuracy and false alarms under each benign shift; above twice the promise a rate is marked."""
    alphas = [row.alpha for row in rows[0].alarms] if rows else []
    head = ["Clean images", "Right", *(f"Called adversarial at {100 * alpha:g} %" for alpha in alphas)]
    return table([*head, "Most by"], (_shift_row(row) for row in rows))


def _shift_row(row: ShiftResult) -> list[str]:
    title = escape(row.title) + ("<small>mild</small>" if row.is_mild and row.name != "none" else "")
    loudest = escape(row.loudest.replace("_", " ")) if row.loudest else '<span class="none">none</span>'
    return [title, rate(row.accuracy), *(_alarms(at.alpha, at.rate) for at in row.alarms), loudest]


def _alarms(alpha: float, estimate: Estimate) -> str:
    shown = rate(estimate)
    return f'<span class="loud">{shown}</span>' if (estimate.value or 0.0) > 2 * alpha else shown


def class_table(rows: Sequence[ClassAlarms], *, shown: int = 8) -> str:
    """The classes with the largest share of false alarms."""
    worst = sorted((row for row in rows if row.images), key=lambda row: row.alarms / row.images, reverse=True)[:shown]
    return table(
        ["Class", "False alarms", "Of the images named rightly"],
        (
            [
                escape(row.name),
                _counted(row.alarms, row.images),
                _counted(row.alarms_when_right, row.right),
            ]
            for row in worst
        ),
    )


def _counted(count: int, among: int) -> str:
    share = "" if among < _FEW else f"<small>{percent(count / among)}</small>"
    return f"{count} of {among}{share}"


def auroc_table(attacks: Sequence[AttackResult], *, successful: bool) -> str:
    """AUROC of each attack and detector, coloured: blue is better than a coin, orange worse."""
    names = [score.detector for score in attacks[0].aurocs] if attacks else []
    return table(
        ["Attack", *(escape(name.replace("_", " ")) for name in names)],
        ([escape(attack.title), *(_heat(score, successful) for score in attack.aurocs)] for attack in attacks),
        kind="heat",
    )


def _heat(score: DetectorAuroc, successful: bool) -> str:
    estimate = score.successful if successful else score.all
    if estimate.value is None:
        return '<td class="none">none</td>'
    strength = abs(estimate.value - 0.5) * 2
    colour = "37,99,235" if estimate.value >= 0.5 else "234,88,12"
    kind = ' class="fused"' if score.detector == "fused" else ""
    return f'<td{kind} style="background:rgba({colour},{0.65 * strength:.3f})">{estimate.value:.2f}</td>'
