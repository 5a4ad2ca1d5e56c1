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
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.errors import SetupError
from service.history.evidence import Edges, Rates
from service.history.types import Float64s

__all__ = ["Calibration"]

_UNREADABLE = (EOFError, OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
"""What numpy raises of a damaged file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What the history knows of benign traffic.

    Raises:
        ValueError: the statistics are none, not finite, not rising, or not as many as the weights.
    """

    edges: Edges
    rates: Rates
    statistics: Float64s
    """(n,) different evidence of benign queries, rising; 0 of those without a component."""
    weights: Float64s
    """(n,) of the queries with this evidence, 1 / queries of their stream, added up: in all the number of streams."""

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
        every = np.concatenate([np.array(stream, np.float64) for stream in streams])
        shares = np.concatenate([np.full(len(stream), 1 / len(stream)) for stream in streams])
        statistics, places = np.unique(every, return_inverse=True)
        weights = np.bincount(places, weights=shares).astype(np.float64)
        return cls(edges=edges, rates=rates, statistics=statistics, weights=weights)

    @classmethod
    def strictest(cls, calibrations: "Sequence[Calibration]") -> "Calibration":
        """One that gives the largest p-value of several, or of one, which share edges and rates.

        Where each is of another kind of streams, its p-values are valid for streams of each kind, and so for any
        mixture of them.
        """
        streams = min(one.streams for one in calibrations)
        statistics = np.unique(np.concatenate([one.statistics for one in calibrations]))
        ranks = np.max([[one.rank(value) for value in statistics.tolist()] for one in calibrations], axis=0)
        above = ranks * (streams + 1) - 1
        weights = above - np.append(above[1:], 0.0)
        keeps = weights > 1e-9
        first = calibrations[0]
        return cls(edges=first.edges, rates=first.rates, statistics=statistics[keeps], weights=weights[keeps])

    @cached_property
    def streams(self) -> int:
        """How many were ranked; of several kinds, those of the kind with fewest."""
        return round(float(self.weights.sum()))

    @cached_property
    def _ranks(self) -> tuple[list[float], list[float]]:
        above = np.append(self.weights[::-1].cumsum()[::-1], 0.0)
        return self.statistics.tolist(), above.tolist()

    def p_value(self, evidence: float) -> float:
        """How often a benign query has at least so much evidence, or less often; in [1 / (streams + 1), 1]."""
        return min(1.0, max(math.exp(-evidence), self.rank(evidence)))

    def rank(self, evidence: float) -> float:
        """How often a benign query has at least so much evidence, by the streams alone."""
        values, above = self._ranks
        return (1 + above[bisect_left(values, evidence)]) / (self.streams + 1)

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
            edges.beside,
        ]
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            edges=np.array(numbers, np.float64),
            counts=np.array([rates.joins, rates.near], np.int64),
            allowance=np.array(rates.allowance),
            ranks=np.array(rates.ranks, np.int64),
            sizes=np.array(rates.sizes, np.int64),
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
            matches, radius, entries, dimension, margin, p_value, alpha, beside = found["edges"].tolist()
            statistics, weights = found["statistics"], found["weights"]
            joins, near = found["counts"].tolist()
            rates = Rates(
                joins=joins,
                near=near,
                ranks=tuple(found["ranks"].tolist()),
                sizes=tuple(found["sizes"].tolist()),
                allowance=float(found["allowance"]),
                matches=tuple(found["matches"].tolist()),
                label_flips=tuple(found["label_flips"].tolist()),
                verdict_flips=tuple(found["verdict_flips"].tolist()),
            )
            sizes = int(matches), int(entries)
        except (*_UNREADABLE, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"expected a calibration of the history, got another file: {error}") from error
        edges = Edges(
            matches=sizes[0],
            radius=radius,
            entries=sizes[1],
            dimension=dimension,
            margin=margin,
            p_value=p_value,
            alpha=alpha,
            beside=beside,
        )
        return cls(edges=edges, rates=rates, statistics=statistics, weights=weights)
