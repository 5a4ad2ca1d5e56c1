"""Charts as inline SVG whose colours come from the page's style sheet, so that they follow light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from service.detection.types import Float64s

__all__ = ["Line", "histogram", "roc_chart", "share_chart"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 26, 40
_LEAST_FPR = 1e-3
_SHOWN_POINTS = 400


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """One curve: ROC, or a share over something else."""

    title: str
    number: int
    """Picks colour and dashes; the legend of the page uses the same."""
    xs: Float64s
    """False-positive rate of a ROC curve."""
    ys: Float64s
    """Its true-positive rate."""


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Where the data lie in the drawing, y in [0, 1] upwards."""

    width: int
    height: int
    log: bool = False

    def x(self, value: float) -> float:
        if self.log:
            value = 1 - np.log10(max(value, _LEAST_FPR)) / np.log10(_LEAST_FPR)
        return _LEFT + value * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return self.height - _BOTTOM - value * (self.height - _TOP - _BOTTOM)


def roc_chart(lines: Sequence[Line], *, log: bool) -> str:
    """True-positive against false-positive rate; with `log` the small rates, at which a service works, get room."""
    frame = _Frame(width=440, height=370, log=log)
    ticks = (0.001, 0.01, 0.1, 1.0) if log else (0.0, 0.25, 0.5, 0.75, 1.0)
    chance = np.geomspace(_LEAST_FPR, 1, 60) if log else np.array([0.0, 1.0])
    parts = [
        *_grid(frame, ticks, [f"{100 * tick:g} %" for tick in ticks]),
        _polyline(frame, chance, chance, "chance"),
        *(f"<g><title>{escape(line.title)}</title>{_roc_line(frame, line)}</g>" for line in lines),
        _axis_titles(frame, "clean images falsely called adversarial", "attacked images found"),
    ]
    scale = "logarithmic" if log else "linear"
    return _svg(frame, parts, f"ROC curves, {scale} false-positive axis")


def _roc_line(frame: _Frame, line: Line) -> str:
    fpr, tpr = line.xs, line.ys
    if frame.log:
        start = np.interp(_LEAST_FPR, fpr, tpr)  # the axis has no zero
        fpr, tpr = np.append(_LEAST_FPR, fpr[fpr > _LEAST_FPR]), np.append(start, tpr[fpr > _LEAST_FPR])
    keep = _thinned(fpr, tpr)
    return _polyline(frame, fpr[keep], tpr[keep], f"line s{line.number}")


def _thinned(fpr: Float64s, tpr: Float64s) -> NDArray[np.int64]:
    """Corners of the curve, and of those at most a few hundred."""
    if len(fpr) <= 2:
        return np.arange(len(fpr))
    straight = (np.diff(fpr)[1:] == 0) & (np.diff(fpr)[:-1] == 0) | (np.diff(tpr)[1:] == 0) & (np.diff(tpr)[:-1] == 0)
    corners = np.flatnonzero(np.concatenate([[True], ~straight, [True]]))
    shown = np.unique(np.linspace(0, len(corners) - 1, _SHOWN_POINTS).round().astype(int))
    return np.asarray(corners[shown])


def share_chart(
    lines: Sequence[Line],
    ticks: Sequence[float],
    x_title: str,
    y_title: str,
    *,
    width: int = 440,
    height: int = 370,
) -> str:
    """Shares in [0, 1] over a quantity that runs from 0 to the last tick; a corner stands for a measured value.

    Args:
        lines: `xs` is the quantity, rising; `ys` the share.
        ticks: rising, the first 0.
        x_title: of the quantity.
        y_title: of the share.
        width: of the drawing, in its own units: a letter is 12 of them high.
        height: likewise.
    """
    frame = _Frame(width=width, height=height)
    parts = _grid(frame, [tick / ticks[-1] for tick in ticks], [f"{tick:g}" for tick in ticks])
    for line in lines:
        marks = "".join(
            f'<circle class="mark s{line.number}" cx="{frame.x(x / ticks[-1]):.1f}" cy="{frame.y(y):.1f}" r="3"/>'
            for x, y in zip(line.xs, line.ys, strict=True)
        )
        drawn = _polyline(frame, line.xs / ticks[-1], line.ys, f"line s{line.number}")
        parts.append(f"<g><title>{escape(line.title)}</title>{drawn}{marks}</g>")
    parts.append(_axis_titles(frame, x_title, y_title))
    return _svg(frame, parts, f"{y_title} over {x_title}")


def histogram(clean: Float64s, attacked: Float64s, title: str) -> str:
    """p-values in ten bins: an outline for clean images, filled bars for attacked ones.

    Args:
        clean: (N,) in (0, 1].
        attacked: (M,) in (0, 1].
    """
    frame = _Frame(width=300, height=210)
    edges = np.linspace(0, 1, 11)
    shares = [np.histogram(values, edges)[0] / max(1, len(values)) for values in (clean, attacked)]
    top = max(0.2, float(max(share.max() for share in shares)))
    parts = _grid(frame, (0.0, 0.5, 1.0), ["0", "0.5", "1"], y_ticks=(0.0, 0.5, 1.0), y_top=top)
    for left, right, share in zip(edges[:-1], edges[1:], shares[1], strict=True):
        x, width = frame.x(left) + 1, frame.x(right) - frame.x(left) - 2
        label = f"<title>{100 * share:.0f} % of attacked images have p from {left:.1f} to {right:.1f}</title>"
        y = frame.y(share / top)
        size = f'width="{width:.1f}" height="{frame.y(0) - y:.1f}"'
        parts.append(f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" {size}>{label}</rect>')
    steps_x, steps_y = np.repeat(edges, 2), np.concatenate([[0], np.repeat(shares[0], 2), [0]])
    parts.append(_polyline(frame, steps_x, steps_y / top, "outline"))
    parts.append(_axis_titles(frame, "p-value", "share of images"))
    return _svg(frame, parts, f"p-values of clean and attacked images, {title}")


def _grid(
    frame: _Frame,
    ticks: Sequence[float],
    labels: Sequence[str],
    *,
    y_ticks: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    y_top: float = 1.0,
) -> list[str]:
    parts = []
    for tick in y_ticks:
        y = frame.y(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{frame.width - _RIGHT}"/>')
        parts.append(f'<text class="y" x="{_LEFT - 5}" y="{y + 4:.1f}">{100 * tick * y_top:.0f} %</text>')
    for number, (tick, label) in enumerate(zip(ticks, labels, strict=True)):
        x, kind = frame.x(tick), "last" if number == len(ticks) - 1 else "x"
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{frame.height - _BOTTOM}"/>')
        parts.append(f'<text class="{kind}" x="{x:.1f}" y="{frame.height - _BOTTOM + 15}">{label}</text>')
    return parts


def _axis_titles(frame: _Frame, x_title: str, y_title: str) -> str:
    middle = (_LEFT + frame.width - _RIGHT) / 2
    return (
        f'<text class="x title" x="{middle:.0f}" y="{frame.height - 5}">{escape(x_title)}</text>'
        f'<text class="title" x="4" y="{_TOP - 12}">{escape(y_title)}</text>'
    )


def _polyline(frame: _Frame, xs: Float64s, ys: Float64s, kind: str) -> str:
    points = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in zip(xs, ys, strict=True))
    return f'<polyline class="{kind}" points="{points}"/>'


def _svg(frame: _Frame, parts: Sequence[str], label: str) -> str:
    box = f'viewBox="0 0 {frame.width} {frame.height}"'
    return f'<svg {box} role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
