"""Line charts, scatter plots and kernels as inline SVG whose colours come from the page's style sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from service.detection.types import Float64s
from training.analysis.embedding import EmbeddingMap

__all__ = ["Curve", "kernel_picture", "legend", "line_chart", "scatter"]

_WIDTH, _HEIGHT = 440, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 26, 40
_SIDE = 400


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart."""

    title: str
    number: int
    """Picks the colour."""
    xs: Sequence[float]
    ys: Sequence[float]
    dashed: bool = False

    @property
    def css(self) -> str:
        """Its classes."""
        return f"line s{self.number % 10} {'dashed' if self.dashed else 'solid'}"


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """From data to the drawing."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / ((high - low) or 1.0) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return _HEIGHT - _BOTTOM - (value - low) / ((high - low) or 1.0) * (_HEIGHT - _TOP - _BOTTOM)


def line_chart(
    curves: Sequence[Curve],
    *,
    label: str,
    x_title: str,
    y_title: str,
    x_ticks: Sequence[float],
    falling: bool = False,
    shares: bool = True,
) -> str:
    """Lines with a mark at each point, whose tooltip gives the numbers.

    Args:
        curves: what to draw.
        label: what the figure shows, for those who do not see it.
        x_title: below the axis.
        y_title: above the axis.
        x_ticks: where the x axis is labelled; it reaches over them and the data.
        falling: whether x falls to the right.
        shares: y is in [0, 1] and labelled in percent; else it starts at 0 and ends above the largest value.
    """
    xs = [*x_ticks, *(x for curve in curves for x in curve.xs)] or [0.0, 1.0]
    top = 1.0 if shares else _round_up(max((y for curve in curves for y in curve.ys), default=1.0))
    ends = (max(xs), min(xs)) if falling else (min(xs), max(xs))
    frame = _Frame(x_range=ends, y_range=(0.0, top))
    parts = [_y_grid(frame, top * step / 4, shares=shares) for step in range(5)]
    parts += [_x_grid(frame, tick) for tick in x_ticks]
    parts += [_line(frame, curve, x_title, shares=shares) for curve in curves]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="x title" x="{middle:.0f}" y="{_HEIGHT - 5}">{escape(x_title)}</text>')
    parts.append(f'<text class="title" x="4" y="{_TOP - 12}">{escape(y_title)}</text>')
    return _svg(_WIDTH, _HEIGHT, parts, label)


def _round_up(value: float) -> float:
    """The next of 1, 2, 4 or 8 times a power of ten, so that quarters have few digits."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value))


def _y_grid(frame: _Frame, tick: float, *, shares: bool) -> str:
    y, text = frame.y(tick), _number(tick, shares=shares)
    return (
        f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text class="y" x="{_LEFT - 5}" y="{y + 4:.1f}">{text}</text>'
    )


def _x_grid(frame: _Frame, tick: float) -> str:
    x = frame.x(tick)
    kind = "last" if x > _WIDTH - _RIGHT - 1 else "x"
    return (
        f'<path class="grid" d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>'
        f'<text class="{kind}" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 15}">{tick:g}</text>'
    )


def _line(frame: _Frame, curve: Curve, x_title: str, *, shares: bool) -> str:
    points = [(frame.x(x), frame.y(y)) for x, y in zip(curve.xs, curve.ys, strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    marks = "".join(
        f'<circle class="dot s{curve.number % 10}" cx="{px:.1f}" cy="{py:.1f}" r="2.5">'
        f"<title>{escape(curve.title)}, {escape(x_title)} {x:.3g}: {_number(y, shares=shares)}</title></circle>"
        for (px, py), x, y in zip(points, curve.xs, curve.ys, strict=True)
    )
    return f'<polyline class="{curve.css}" points="{path}"/>{marks}'


def _number(value: float, *, shares: bool) -> str:
    return f"{100 * value:.3g} %" if shares else f"{value:.3g}"


def legend(curves: Sequence[Curve]) -> str:
    """What each line is."""
    items = (
        f'<li><svg viewBox="0 0 28 8" aria-hidden="true"><path class="{curve.css}" d="M1 4H27"/></svg>'
        f"{escape(curve.title)}</li>"
        for curve in curves
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def scatter(points: EmbeddingMap, class_names: Sequence[str], label: str) -> str:
    """Clean images as circles, attacked ones as crosses, each class in its colour."""
    numbers = {label: number for number, label in enumerate(points.classes)}
    parts = []
    for clean, attacked, truth in zip(points.clean, points.attacked, points.labels, strict=True):
        title = f"<title>{escape(class_names[truth])}"
        css = f"s{numbers[int(truth)]}"
        (x, y), (u, v) = _placed(clean), _placed(attacked)
        parts.append(f'<circle class="dot {css}" cx="{x:.1f}" cy="{y:.1f}" r="2.6">{title}, clean</title></circle>')
        parts.append(
            f'<path class="cross {css}" d="M{u - 3:.1f} {v - 3:.1f}l6 6m0 -6l-6 6">{title}, attacked</title></path>'
        )
    return _svg(_SIDE, _SIDE, parts, label)


def _placed(point: Float64s) -> tuple[float, float]:
    return 8 + float(point[0]) * (_SIDE - 16), 8 + float(point[1]) * (_SIDE - 16)


def kernel_picture(kernels: Float64s, label: str) -> str:
    """Kernels (n, h, w, C) in rows of four, each on its own scale: mid-grey is 0, white the largest weight.

    Kernels of three channels are shown in colour, of more by their mean.
    """
    count, height, width, channels = kernels.shape
    shown = kernels if channels in (1, 3) else kernels.mean(axis=3, keepdims=True)
    largest = np.maximum(np.abs(shown).max(axis=(1, 2, 3), keepdims=True), 1e-12)
    levels = np.rint(127.5 + 127.5 * shown / largest).astype(int)
    levels = np.broadcast_to(levels, (count, height, width, 3))  # grey is all three alike
    parts = []
    for number, kernel in enumerate(levels):
        left, top = number % 4 * (width + 0.5), number // 4 * (height + 0.5)
        parts += [
            f'<rect x="{left + column:g}" y="{top + row:g}" width="1.02" height="1.02" fill="rgb({r},{g},{b})"/>'
            for row, line in enumerate(kernel)
            for column, (r, g, b) in enumerate(line)
        ]
    rows = -(-count // 4)
    return _svg(4 * (width + 0.5) - 0.5, rows * (height + 0.5) - 0.5, parts, label)


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
