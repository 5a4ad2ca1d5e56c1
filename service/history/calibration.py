"""Evidence to p-values, by its rank among benign streams.

The events that evidence is made of depend on each other and on their component, so it has no table: the larger of both
scopes' is ranked among those of benign queries. Queries of one stream go together, so a stream counts as one: with G
benign streams

    p = (1 + sum over streams of the share of its queries with at least as much) / (G + 1)

is valid for a query of a further stream like them (Lee, Barber and Willett 2023, hierarchical conformal prediction).
p is never below exp(-evidence): where benign components gather next to none, a little more than theirs would else be a
flag at once.
"""

import io
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.errors import SetupError
from service.history.evidence import Edges, Rates
from service.history.types import Float64s

__all__ = ["Calibration"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What the history knows of benign traffic.

    Raises:
        ValueError: the statistics are none, not finite, not rising, or not as many as the weights.
    """

    edges: Edges
    rates: Rates
    statistics: Float64s
    """(n,) evidence of benign queries, rising; 0 of those without a component."""
    weights: Float64s
    """(n,) 1 / queries of its stream, of each of them; they add up to the number of streams."""

    def __post_init__(self) -> None:
        for name in ("statistics", "weights"):
            row = getattr(self, name)
            if row.ndim != 1 or not row.size or row.size != self.weights.size or not np.isfinite(row).all():
                raise ValueError(f"{name}: expected {self.weights.size} finite numbers, got {row.dtype} {row.shape}")
        if (np.diff(self.statistics) < 0).any() or (self.weights <= 0).any():
            raise ValueError("statistics: expected numbers in rising order, with weights above 0")

    @classmethod
    def ranked(cls, edges: Edges, rates: Rates, streams: Sequence[Sequence[float]]) -> "Calibration":
        """Of the evidence of the queries of benign streams, each with one query at least."""
        statistics = np.concatenate([np.array(stream, np.float64) for stream in streams])
        weights = np.concatenate([np.full(len(stream), 1 / len(stream)) for stream in streams])
        order = np.argsort(statistics, kind="stable")
        return cls(edges=edges, rates=rates, statistics=statistics[order], weights=weights[order])

    @cached_property
    def streams(self) -> int:
        """How many were ranked."""
        return round(float(self.weights.sum()))

    @cached_property
    def _ranks(self) -> tuple[list[float], list[float]]:
        above = np.append(self.weights[::-1].cumsum()[::-1], 0.0)
        return self.statistics.tolist(), above.tolist()

    def p_value(self, evidence: float) -> float:
        """How often a benign query has at least so much evidence, or less often; in [1 / (streams + 1), 1]."""
        values, above = self._ranks
        rank = (1 + above[bisect_left(values, evidence)]) / (self.streams + 1)
        return min(1.0, max(math.exp(-evidence), rank))

    def check_level(self, level: float) -> None:
        """Refuses a level that no query could reach.

        Raises:
            SetupError: it is not above 0, or more streams are needed than there are.
        """
        if not 0 < level < 1:
            raise SetupError(f"history: expected a level between 0 and 1, got {level:g}")
        if level * (self.streams + 1) < 1 - 1e-9:
            raise SetupError(
                f"history: a level of {level:g} needs a calibration with {math.ceil(1 / level - 1e-9) - 1} streams to "
                f"rank among, this one has {self.streams}; take {1 / (self.streams + 1):.2g} or more"
            )

    def to_bytes(self) -> bytes:
        """The content of a file of it."""
        edges, rates = self.edges, self.rates
        numbers = [
            edges.matches,
            edges.radius,
            edges.entries,
            edges.dimension,
            edges.margin,
            edges.p_value,
            edges.alpha,
        ]
        buffer = io.BytesIO()
        np.savez(
            buffer,
            edges=np.array(numbers, np.float64),
            counts=np.array([rates.joins, rates.near], np.int64),
            allowance=np.array(rates.allowance),
            matches=np.array(rates.matches, np.int64),
            label_flips=np.array(rates.label_flips, np.float64),
            verdict_flips=np.array(rates.verdict_flips, np.float64),
            statistics=self.statistics,
            weights=self.weights,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Calibration":
        """Reads what `to_bytes` gave.

        Raises:
            ValueError: it is none of it.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays}
            matches, radius, entries, dimension, margin, p_value, alpha = found["edges"].tolist()
            statistics, weights = found["statistics"], found["weights"]
            joins, near = found["counts"].tolist()
            rates = Rates(
                joins=joins,
                near=near,
                allowance=float(found["allowance"]),
                matches=tuple(found["matches"].tolist()),
                label_flips=tuple(found["label_flips"].tolist()),
                verdict_flips=tuple(found["verdict_flips"].tolist()),
            )
        except (KeyError, EOFError, OSError, ValueError) as error:
            raise ValueError(f"expected a calibration of the history, got another file: {error}") from error
        edges = Edges(
            matches=int(matches),
            radius=radius,
            entries=int(entries),
            dimension=dimension,
            margin=margin,
            p_value=p_value,
            alpha=alpha,
        )
        return cls(edges=edges, rates=rates, statistics=statistics, weights=weights)
