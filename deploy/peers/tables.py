"""What was measured, as tables: for the terminal and for docs/results.md."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["DETECTORS", "Table", "markdown", "remarks", "tables"]

DETECTORS = "detectors"
"""Field of a result file that only a comparison of detectors has."""

_TPR = "_tpr_at_0.05"
_FEW = 100
"""Images below which a rate is shown as a fraction."""

_OWN = {
    "adaptive_accepted_and_wrong_at_0.05": "misread and accepted, of all",
    "adaptive_success_rate": "misread, of those read rightly",
    "adaptive_auroc": "AUROC",
    "robust_accuracy_with_rejection_at_0.05": "robust accuracy with rejection, all attacks",
}
_NOT_ATTACKED = ("no gradient: not attacked", *["-"] * (len(_OWN) - 1))

Table = tuple[str, list[tuple[str, ...]]]
"""A title, and rows of which the first has the columns' names."""


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Of a result: AUROC of the attacks that succeeded, of all attacked images, and rates at the thresholds.

    Args:
        result: with `metrics`, `detectors` and `attacks`, as a result file has them.
    """
    attacks: Mapping[str, str] = result["attacks"]
    metrics: Mapping[str, float] = result["metrics"]
    measured = [one for one in result[DETECTORS] if "why" not in one]
    own = {"mean_auroc": "mean", "worst_auroc": "worst"}
    successful = {f"{name}_auroc": title for name, title in attacks.items()}
    every = {f"{name}_auroc_all": title for name, title in attacks.items()}
    return [
        ("AUROC, attacks that succeeded against clean images read rightly", _rows(measured, metrics, successful | own)),
        ("AUROC, all attacked images against all clean ones", _rows(measured, metrics, every)),
        ("Detected of the attacks that succeeded, thresholds at 5 % false positives", _rates(measured, result)),
        ("Under an attack that knows the detector, thresholds at 5 % false positives", _own_attack(measured, metrics)),
    ]


def remarks(result: Mapping[str, Any]) -> list[str]:
    """A line for each attack-trained or absent detector's reader, and how many attacks succeeded."""
    metrics: Mapping[str, float] = result["metrics"]
    counts = ", ".join(
        f"{title} {metrics[f'attacks/{name}_successful']:.0f}" for name, title in result["attacks"].items()
    )
    absent = [f"{one['title']}: not measured: {one['why']}" for one in result[DETECTORS] if "why" in one]
    return [
        f"Of {metrics['attacks/right']:.0f} attacked images that are read rightly, successful: {counts}.",
        '"clean and PGD": trained on attacked images, PGD\'s of the calibration part; all other attacks are new to it.',
        "The attack that knows the detector is selective PGD at the training budget; one attack proves no strength.",
        f"Without a detector PGD gets {metrics['attacks/pgd_misread']:.3f} of the images misread.",
        *absent,
    ]


def markdown(result: Mapping[str, Any]) -> list[str]:
    """Lines for docs/results.md."""
    lines = []
    for title, (head, *rows) in tables(result):
        lines += [f"{title}:", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
    return [*lines, *(f"* {line}" for line in remarks(result)), ""]


def _rows(
    detectors: Sequence[Mapping[str, Any]], metrics: Mapping[str, float], columns: Mapping[str, str]
) -> list[tuple[str, ...]]:
    """One row a detector; columns from metric to title."""
    rows = [("detector", "fitted on", *columns.values())]
    for one in detectors:
        cells = [_number(metrics.get(f"{one['name']}/{name}")) for name in columns]
        rows.append((one["title"], one["fit"], *cells))
    return rows


def _rates(detectors: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    metrics, attacks = result["metrics"], result["attacks"]
    rows = [("detector", "fitted on", *attacks.values(), "false positives", "CPU ms an image")]
    for one in detectors:
        name = one["name"]
        found = [
            _rate(metrics.get(f"{name}/{attack}{_TPR}"), int(metrics[f"attacks/{attack}_successful"]))
            for attack in attacks
        ]
        rows.append(
            (
                one["title"],
                one["fit"],
                *found,
                _number(metrics[f"{name}/false_positive_rate_at_0.05"]),
                f"{metrics[f'{name}/ms_an_image']:.3g}",
            )
        )
    return rows


def _own_attack(detectors: Sequence[Mapping[str, Any]], metrics: Mapping[str, float]) -> list[tuple[str, ...]]:
    rows = [("detector", "fitted on", *_OWN.values())]
    for one in detectors:
        found = tuple(_number(metrics.get(f"{one['name']}/{name}")) for name in _OWN)
        rows.append((one["title"], one["fit"], *(found if one["has_gradient"] else _NOT_ATTACKED)))
    return rows


def _rate(value: float | None, count: int) -> str:
    if value is None:
        return "-"
    return f"{round(value * count)}/{count}" if count < _FEW else _number(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
