"""Outcomes to figures: success, what it cost, and when it was noticed."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from deploy.redteam.cases import OARS, OFF, PLAIN, Case
from deploy.redteam.running import Outcome
from service.watching.types import Mode

__all__ = ["headline", "rows", "table"]

WITHIN = 50
"""Queries within which a plain attack is to be noticed."""

Row = Mapping[str, Any]
"""Of one case and one budget; None where there is nothing to tell, such as the queries of a success."""


def rows(case: Case, outcomes: Sequence[Outcome]) -> list[Row]:
    """The figures of a case, for each of its budgets."""
    asked = sum(one.queries for one in outcomes)
    firsts = [math.inf if one.first_flag is None else one.first_flag for one in outcomes]
    middle = float(np.median(firsts))
    common = {
        "name": case.name,
        "family": case.family,
        "how": case.how,
        "mode": str(case.mode),
        "accounts": case.budget.accounts,
        "images": len(outcomes),
        "queries": asked,
        "flagged": sum(one.flags for one in outcomes) / max(1, asked),
        "first_flag": middle if math.isfinite(middle) else None,
        "within_50": float(np.mean([first <= WITHIN for first in firsts])),
        "norm": _median([one.norm for one in outcomes if one.norm is not None]),
        "hours": float(np.median([one.seconds for one in outcomes])) / 3600,
        "ends": {str(end): sum(one.end is end for one in outcomes) for end in {one.end for one in outcomes}},
    }
    return [{**common, **_of_eps(eps, outcomes)} for eps in case.eps]


def _of_eps(eps: int, outcomes: Sequence[Outcome]) -> Row:
    def cost(of: Callable[[Outcome], Mapping[int, int]]) -> float | None:
        return _median([of(one)[eps] for one in outcomes if eps in of(one)])

    return {
        "eps": eps,
        "success": float(np.mean([eps in one.won for one in outcomes])),
        "fooled": float(np.mean([eps in one.fooled for one in outcomes])),
        "success_queries": cost(lambda one: one.won),
        "success_flags": cost(lambda one: one.flags_won),
        "success_accounts": cost(lambda one: one.accounts_won),
    }


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def headline(found: Sequence[Row], budget: int) -> dict[str, float]:
    """Flat figures of the result file.

    OARS's success against a server that rejects is that of its most successful case, whatever accounts and budget eps,
    and by number of accounts and by eps; the undefended attack's stands beside it. Of plain attacks it tells how soon
    the one that is noticed last is noticed.

    Args:
        budget: in queries; stands for the first flag of an attack of which most have none.
    """
    metrics = dict[str, float]()
    for family in dict.fromkeys(row["family"] for row in found):
        own = [row for row in found if row["family"] == family]
        oars = [row for row in own if row["how"] == OARS and row["mode"] == Mode.REJECT]
        for name, those in (
            (f"oars_{family}_success", oars),
            *(
                (f"oars_{family}_success_{count}_accounts", [row for row in oars if row["accounts"] == count])
                for count in dict.fromkeys(row["accounts"] for row in oars)
            ),
            (f"undefended_{family}_success", [row for row in own if row["how"] == PLAIN and row["mode"] == OFF]),
            (f"worst_{family}_success", [row for row in own if row["mode"] != OFF and row["mode"] != Mode.ANNOTATE]),
        ):
            metrics |= {name: max(row["success"] for row in those)} if those else {}
            if not name.startswith("worst"):
                for eps in dict.fromkeys(row["eps"] for row in those):
                    metrics[f"{name}_eps_{eps}"] = max(row["success"] for row in those if row["eps"] == eps)
        noticed = [row for row in own if row["how"] == PLAIN and row["mode"] == Mode.ANNOTATE]
        if noticed:
            firsts = [budget if row["first_flag"] is None else row["first_flag"] for row in noticed]
            metrics[f"plain_{family}_first_flag_median"] = float(max(firsts))
            metrics[f"plain_{family}_flagged_within_50"] = min(row["within_50"] for row in noticed)
    medians = [value for name, value in metrics.items() if name.endswith("_first_flag_median")]
    return metrics | ({"plain_first_flag_median": max(medians)} if medians else {})


HEAD = (
    "attack",
    "besides",
    "server",
    "accounts",
    "eps",
    "success",
    "fooled",
    "queries, flags, accounts of a success",
    "queries flagged",
    "first flag",
    "within 50",
    "norm",
    "hours",
)


def table(found: Sequence[Row]) -> str:
    """All cases, for people; also in docs/redteam.md."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for row in found:
        costs = [row[f"success_{what}"] for what in ("queries", "flags", "accounts")]
        cells = (
            row["family"],
            row["how"],
            row["mode"],
            str(row["accounts"]),
            f"{row['eps']}/255",
            _share(row["success"], row["images"]),
            _share(row["fooled"], row["images"]),
            "-" if costs[0] is None else ", ".join(f"{cost:,.0f}" for cost in costs),
            "-" if row["mode"] == OFF else f"{row['flagged']:.1%}",
            "-" if row["first_flag"] is None else f"{row['first_flag']:,.0f}",
            "-" if row["mode"] == OFF else f"{row['within_50']:.0%}",
            "-" if row["norm"] is None else f"{row['norm']:.0f}/255",
            f"{row['hours']:,.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(share: float, count: int) -> str:
    """As a fraction where there are few."""
    return f"{share:.1%}" if count >= 100 else f"{round(share * count)}/{count}"
