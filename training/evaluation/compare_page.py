"""`compare.html`: two bundles side by side, for people."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING

from training.evaluation.tables import table

if TYPE_CHECKING:
    from training.evaluation.compare import Pair, Side

__all__ = ["page"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<main>
<header><h1>Two bundles side by side</h1><p class="subtitle">A: {first} · B: {second}</p></header>
{remarks}
<p>Small figures are 95 % intervals over the images; they cover neither another training run nor another calibration.
<span class="good">Better</span> stands where the intervals lie apart.</p>
{sections}
</main>
</body>
</html>
"""


def page(titles: tuple[str, str], pairs: Sequence["Pair"], remarks: Sequence[str]) -> str:
    """The whole page; it loads nothing from anywhere.

    Args:
        titles: of the two bundles.
        pairs: figures, those of a section together.
        remarks: why they may not be held against each other.
    """
    css = (files("training.evaluation") / "report.css").read_text(encoding="utf-8")
    sections = [_section(name, list(rows)) for name, rows in groupby(pairs, key=lambda pair: pair.section)]
    text = _PAGE.format(
        title=escape(f"{titles[0]} beside {titles[1]}"),
        first=escape(titles[0]),
        second=escape(titles[1]),
        css=css,
        remarks=_remarks(remarks),
        sections="\n".join(sections),
    )
    return text.replace(" %", "\N{NO-BREAK SPACE}%")  # or lines break between number and sign


def _remarks(remarks: Sequence[str]) -> str:
    if not remarks:
        return ""
    rows = "".join(f"<li>{escape(remark)}</li>" for remark in remarks)
    return f'<div class="caveat"><strong>Not measured alike:</strong><ul>{rows}</ul></div>'


def _section(name: str, pairs: Sequence["Pair"]) -> str:
    rows = ([escape(pair.name), _cell(pair, "first"), _cell(pair, "second")] for pair in pairs)
    more = "more" if pairs[0].wanted == "more" else "less"
    body = table(["", "A", "B"], rows, kind="pairs")
    return f"<section><h2>{escape(name)}</h2><p>{more.capitalize()} is better.</p>{body}</section>"


def _cell(pair: "Pair", which: str) -> str:
    side: Side = pair.first if which == "first" else pair.second
    if side.value is None:
        return '<span class="none">none</span>'
    interval = "" if side.low is None or side.high is None else f"<small>{side.low:.3f}–{side.high:.3f}</small>"
    value = f"{side.value:.3f}{interval}"
    return f'<span class="good">{value}</span>' if pair.better == which else value
