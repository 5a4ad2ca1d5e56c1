"""Whether a calibration can be of a bundle's graph: a file that was mixed up or edited is refused before it serves."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from service.history.calibration import Calibration
from service.history.components import SAMPLE

__all__ = ["check_fits"]


def check_fits(calibration: Calibration, *, dimensions: int, alpha: float) -> None:
    """Refuses numbers that no calibration of such a bundle has.

    Args:
        dimensions: of the graph's embedding.
        alpha: the default level of the bundle's verdict.

    Raises:
        ValueError: names the field, what was expected and what came.
    """
    edges, rates = calibration.edges, calibration.rates
    for name, value in (*_numbers("edges", edges), *_numbers("rates", rates)):
        _expect(math.isfinite(value) and value >= 0, name, "a finite number of 0 or more", value)
    for name in ("matches", "label_flips", "verdict_flips", "sizes"):
        row = getattr(rates, name)
        _expect(list(row) == sorted(row), f"rates.{name}", "numbers in rising order", row[:4])
        _expect(len(row) <= rates.joins, f"rates.{name}", f"at most {rates.joins} of them", len(row))
    _expect(len(rates.ranks) == SAMPLE + 1, "rates.ranks", f"{SAMPLE + 1} counts", len(rates.ranks))
    _expect(rates.near <= rates.joins, "rates.near", f"at most {rates.joins}", rates.near)
    _expect(edges.matches >= 1, "edges.matches", "1 or more", edges.matches)
    _expect(edges.entries >= 1, "edges.entries", "1 or more", edges.entries)
    _expect(0 < edges.radius <= 2, "edges.radius", "a distance above 0, at most 2", edges.radius)
    _expect(
        0 < edges.dimension <= dimensions,
        "edges.dimension",
        f"a number above 0 and at most {dimensions}, of which the graph's embedding is",
        edges.dimension,
    )
    _expect(edges.p_value <= 1, "edges.p_value", "at most 1", edges.p_value)
    _expect(math.isclose(edges.alpha, alpha), "edges.alpha", f"the manifest's default_alpha, {alpha:g}", edges.alpha)
    _expect(calibration.statistics[0] >= 0, "statistics", "numbers of 0 or more", float(calibration.statistics[0]))


def _numbers(name: str, record: Any) -> Iterator[tuple[str, float]]:
    """Each number of a record, those within tuples too, under its field's name."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            yield f"{name}.{field.name}", float(one)


def _expect(holds: bool, name: str, wanted: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {wanted}, got {value}")
