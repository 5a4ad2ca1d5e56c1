"""The README's picture: the report's chart of growing changes, of every shipped bundle, as one SVG.

It has its own background and both sets of the report's colours, so it can be read on a light and on a dark page. The
colours are written out: many a program that draws SVG knows no variables and would paint all of it black.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from deploy.front.sweeps import ALPHA, Sweep
from training.evaluation import charts
from training.evaluation.charts import share_chart
from training.evaluation.report_further import BUDGETS, sweep_lines

__all__ = ["PICTURE", "picture"]

PICTURE = Path(__file__).parent.parent.parent / "docs" / "growing-changes.svg"
STYLE = Path(charts.__file__).with_name("report.css")
WIDTH, HEIGHT = 240, 230
"""Of one chart."""
COLUMNS = 4
EDGE, HEAD = 14, 58
"""Space at the sides, and for title and legend."""
COLOUR, VARIABLE = re.compile(r"--(\w+): (#\w+)"), re.compile(r"var\(--(\w+)\)")
FONT = 'text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }'
OWN = """.page { fill: var(--card); stroke: var(--line); }
svg .title { fill: var(--text); }
svg .head { font-size: 14px; font-weight: 600; fill: var(--text); }"""


def picture(sweeps: Sequence[Sweep]) -> str:
    """The SVG's text; the same sweeps give the same bytes."""
    lines = {line.number: line.title for sweep in sweeps for line in sweep_lines(sweep.points, ALPHA)}
    rows = -(-len(sweeps) // COLUMNS)
    width, height = COLUMNS * WIDTH + 2 * EDGE, rows * HEIGHT + HEAD + EDGE
    title = f"Images that stay right or are rejected, at {100 * ALPHA:g} % false positives, under growing changes"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_style(lines)}</style>",
        f'<rect class="page" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="10"/>',
        f'<text class="head" x="{EDGE}" y="24">{escape(title)}</text>',
        *_legend(lines),
        *(_placed(sweep, number) for number, sweep in enumerate(sweeps)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _placed(sweep: Sweep, number: int) -> str:
    """One chart at its place."""
    chart = share_chart(
        sweep_lines(sweep.points, ALPHA),
        BUDGETS,
        f"change, in budgets of {sweep.budget}",
        f"{sweep.bundle}, {sweep.points[0].accuracy.n} images",
        width=WIDTH,
        height=HEIGHT,
    )
    row, column = divmod(number, COLUMNS)
    place = f'x="{EDGE + column * WIDTH}" y="{HEAD + row * HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return chart.replace("<svg ", f"<svg {place} ", 1)


def _legend(lines: dict[int, str]) -> list[str]:
    parts, x = [], EDGE
    for number, title in lines.items():
        parts.append(f'<path class="line s{number}" d="M{x} 42h22"/><text x="{x + 27}" y="46">{escape(title)}</text>')
        x += 27 + 7 * len(title) + 16
    return parts


def _style(lines: dict[int, str]) -> str:
    """Of the report's style sheet the rules of the marks that are drawn, in its light colours and in its dark ones."""
    sheet = STYLE.read_text(encoding="utf-8")
    colours, _, rules = sheet.partition("* {")
    light, dark = (dict(COLOUR.findall(part)) for part in colours.split("@media"))
    drawn = [f".s{number} {{" for number in lines]
    kept = [f".{rule}" for line in rules.splitlines() if line.startswith(".s") for rule in line[1:].split(" .")]
    wanted = [rule for rule in kept if any(rule.startswith(start) for start in drawn)]
    wanted += [line for line in rules.splitlines() if line.startswith(("svg text", "svg .y", "svg .grid", "svg .line"))]
    wanted += [line for line in rules.splitlines() if line.startswith("svg .mark")]
    wanted += OWN.splitlines()
    other = [_coloured(rule, dark) for rule in wanted if VARIABLE.search(rule)]
    return "\n".join(
        [FONT, *(_coloured(rule, light) for rule in wanted), "@media (prefers-color-scheme: dark) {", *other, "}"]
    )


def _coloured(rule: str, colours: Mapping[str, str]) -> str:
    return VARIABLE.sub(lambda found: colours[found[1]], rule)
