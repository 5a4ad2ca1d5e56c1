"""The README's table: the rows of the sheet that people ask for first, and what came of them."""

from collections.abc import Mapping
from typing import Any

from deploy.reliability.check import Verdict
from deploy.reliability.result import Row, short

__all__ = ["front_table"]

FRONT: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "R-1": (
        "{calls} calls, Poisson, 70 % of the capacity, 64 connections",
        {
            "errors": "{} failed",
            "p99_over_p50": "99th percentile {} times the median",
            "loop_lag_p99_ms": "event loop {} ms late",
        },
    ),
    "R-2": (
        "{calls} calls, three times the capacity, deadline 1 s",
        {
            "goodput_of_capacity": "{} of the capacity answered",
            "refused_without_pushback": "{} refused without a time to come back",
            "refusal_longest_ms": "refused after {} ms at most",
            "rss_growth_mb": "{} MB more memory",
        },
    ),
    "R-9": (
        "{calls} calls and streams, a fifth cancelled, a fifth too late",
        {
            "mb_per_100k_calls": "{} MB more memory for 100,000 calls",
            "left_in_queue": "{} images left behind",
            "errors_logged": "{} errors logged",
        },
    ),
    "R-11": (
        "{restarts} restarts under load of callers who ask for health, {restarts_without_health} of those who do not",
        {"failed": "{} of {calls} failed", "lost_in_flight": "{} of {calls_without_health} lost while they ran"},
    ),
    "R-16": (
        "images alone and in batches of 1 to 64, at each place, by each method",
        {"answers_differing": "{} of {answers_compared} answers differ by a bit"},
    ),
}
"""By row: what is done, and its figures that are told, in words."""


def front_table(result: Mapping[str, Any]) -> str:
    """The table, and how many rows of the whole sheet are as asked.

    Raises:
        ValueError: one of the rows did not run, or has no such figure.
    """
    rows = {row.number: row for row in map(Row.read, result["checks"])}
    lines = ["| | measured (asked) |", "|---|---|"]
    for number, (what, words) in FRONT.items():
        row = rows.get(number)
        if row is None or not row.judged.figures.keys() >= words.keys():
            raise ValueError(f"{number}: expected its figures {', '.join(words)}; run this row of the sheet")
        told = {name: short(value) for name, value in row.judged.figures.items()}
        cells = []
        for name, text in words.items():
            cell = f"{text.format(told[name], **told)} ({row.asked[name].removeprefix('= ')})"
            cells.append(f"**{cell}**" if name in row.judged.missed else cell)
        lines.append(f"| {number}: {what.format(**told)} | {'; '.join(cells)} |")
    passed = sum(row.judged.verdict is Verdict.PASS for row in rows.values())
    failed = [row.number for row in rows.values() if row.judged.verdict is Verdict.FAIL]
    rest = f"; short of it: {', '.join(failed)}" if failed else ""
    return "\n".join([*lines, "", f"{passed} of the sheet's {len(rows)} rows are as asked{rest}."])
