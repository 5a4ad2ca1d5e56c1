"""Learns from benign traffic when queries are near each other, and how much evidence harmless ones gather."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from heapq import merge

import numpy as np

from service.errors import SetupError
from service.history.boundary import LAST
from service.history.bounds import LEAST_ENTRIES, Bounds
from service.history.calibration import Calibration
from service.history.components import Components
from service.history.evidence import Edges, Join, Rates
from service.history.fingerprints import KEY_BYTES, Fingerprints, digest
from service.history.history import History
from service.history.types import Float32s, Float64s, Integers, Query

__all__ = ["LEAST_UNRELATED", "calibrate"]

CHANCE = 0.05
"""Of unrelated queries, the share that each view may take for near."""
NEAR = 0.025
"""Of unrelated queries, the share whose margin is small, and that whose p-value is."""
LEAST_UNRELATED = 200
LEAST_STREAMS = 2
LEAST_MATCHES = 3
FEWER = 4
"""Times fewer queries, among which the nearest are looked for again, to see how distances fall with their number."""
_ROWS = 512
"""Compared with all at once."""


def calibrate(
    unrelated: Sequence[Query],
    streams: Sequence[Sequence[Query]],
    *,
    alpha: float,
    kinds: Sequence[str] | None = None,
    every: int = 2,
    secret: bytes | None = None,
) -> Calibration:
    """What the history has to know of benign traffic; nothing of it is learned from attacks.

    Args:
        unrelated: queries of different things, as in random traffic; they say what is near.
        streams: the rest of benign traffic, each in the order of time: bursts, retries, videos, random traffic too.
            The first of every two, or of `every` so many, says how benign queries join components, and the others are
            ranked among; a p-value promises its rate for a query of a further such stream. Streams with more than a
            window of `Bounds` between them do not meet.
        kinds: of each stream; then the promise is for streams of each kind, and a level needs as many of each kind as
            it else does in all. One of the kind "" counts with each of the others. None: all are of one kind.
        every: see there.
        alpha: the level of the verdict.
        secret: of `KEY_BYTES` bytes, for the same result again; None for one of the operating system's.

    Raises:
        SetupError: there are too few of either.
    """
    if len(unrelated) < LEAST_UNRELATED or len(streams) < LEAST_STREAMS or not all(streams):
        raise SetupError(
            f"the history's calibration wants {LEAST_UNRELATED} unrelated queries and {LEAST_STREAMS} streams or more "
            f"with a query each, got {len(unrelated)} and {len(streams)}"
        )
    key = os.urandom(KEY_BYTES) if secret is None else secret
    edges = _edges(unrelated, alpha, key)
    plain = Calibration.ranked(edges, Rates.of([]), [[0.0]])
    rates = Rates.of(_joins(plain, streams[::every], key))
    left = [number for number in range(len(streams)) if number % every]
    statistics = _statistics(Calibration.ranked(edges, rates, [[0.0]]), [streams[number] for number in left], key)
    by_kind: defaultdict[str, list[list[float]]] = defaultdict(list)
    for number, found in zip(left, statistics, strict=True):
        by_kind["" if kinds is None else kinds[number]].append(found)
    with_each = by_kind.pop("") if len(by_kind) > 1 and "" in by_kind else []
    return Calibration.strictest([Calibration.ranked(edges, rates, found + with_each) for found in by_kind.values()])


def _edges(unrelated: Sequence[Query], alpha: float, key: bytes) -> Edges:
    queries = list({digest(query.image, key): query for query in unrelated}.values())
    embeddings = np.stack([query.embedding for query in queries])
    radius = max(1e-4, float(np.quantile(_nearest(embeddings, every=1), CHANCE)))
    wider = float(np.quantile(_nearest(embeddings, every=FEWER), CHANCE))
    steepness = math.log(wider / radius) if wider > radius > 0 else 0.0
    dimensions = embeddings.shape[1]
    margins, p_values = (np.array([getattr(query, name) for query in queries]) for name in ("margin", "p_value"))
    margin, p_value = (float(np.quantile(row, NEAR)) for row in (margins, p_values))
    is_near = (margins <= margin) | (p_values <= p_value)
    return Edges(
        matches=_least_matches(_shared(queries, key)),
        radius=radius,
        entries=len(queries),
        dimension=min(dimensions, math.log(FEWER) / steepness) if steepness else dimensions,
        margin=margin,
        p_value=p_value,
        alpha=alpha,
        beside=max(radius, _apart(embeddings[is_near])),
    )


def _nearest(embeddings: Float32s, *, every: int) -> Float64s:
    """(N, D) embeddings to (N,) distances to the nearest other one, one of `every` looked at."""
    rows = embeddings.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    places = np.arange(len(rows))
    found = []
    for start in range(0, len(rows), _ROWS):
        squares = 2.0 - 2.0 * rows[start : start + _ROWS] @ rows[::every].T
        squares[places[start : start + _ROWS, None] == places[None, ::every]] = np.inf
        found.append(np.sqrt(np.maximum(0.0, squares.min(axis=1))))
    return np.concatenate(found)


def _apart(embeddings: Float32s) -> float:
    """(N, D) of near-boundary queries to a distance that few have to the nearest of `LAST` others."""
    rows = embeddings.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    squares = (2.0 - 2.0 * rows @ rows.T)[np.triu_indices(len(rows), 1)]
    return math.sqrt(max(0.0, float(np.quantile(squares, 1 - (1 - CHANCE) ** (1 / LAST)))))


def _shared(queries: Sequence[Query], key: bytes) -> Integers:
    """(N,) keys that each query's sketch shares with the one that it shares most with."""
    fingerprints = Fingerprints(key)
    holders: defaultdict[int, list[int]] = defaultdict(list)
    sketches = [fingerprints.sketches(query.image[None])[0].tolist() for query in queries]
    for number, sketch in enumerate(sketches):
        for value in sketch:
            if value:
                holders[value].append(number)
    most = []
    for number, sketch in enumerate(sketches):
        counts = Counter(other for value in sketch for other in holders.get(value, ()) if other != number)
        most.append(max(counts.values(), default=0))
    return np.array(most)


def _least_matches(shared: Integers) -> int:
    """The least number that at most the share `CHANCE` of unrelated queries reach."""
    return max(LEAST_MATCHES, int(np.quantile(shared, 1 - CHANCE, method="higher")) + 1)


class _Listening(History):
    """A history that notes how queries join components."""

    def __init__(self, calibration: Calibration, *, dimensions: int, bounds: Bounds, secret: bytes) -> None:
        super().__init__(calibration, dimensions=dimensions, bounds=bounds, secret=secret)
        self._noted: list[tuple[Components, int, Join]] = []

    def _added(self, components: Components, root: int, join: Join, crowd: float) -> float:
        self._noted.append((components, root, join))
        return super()._added(components, root, join, crowd)

    def joins(self) -> list[list[Join]]:
        """By component of either scope."""
        found: defaultdict[tuple[int, int], list[Join]] = defaultdict(list)
        for components, root, join in self._noted:
            found[id(components), components.root(root)].append(join)
        return list(found.values())


def _joins(calibration: Calibration, streams: Sequence[Sequence[Query]], key: bytes) -> list[list[Join]]:
    found: list[list[Join]] = []
    for numbers in _meeting(streams):
        history, queries = _playing(calibration, [streams[number] for number in numbers], key)
        history.observe_all([query for _, query in queries])
        found += history.joins()
    return found


def _statistics(calibration: Calibration, streams: Sequence[Sequence[Query]], key: bytes) -> list[list[float]]:
    """The evidence of the queries of benign streams."""
    statistics = [list[float]() for _ in streams]
    for numbers in _meeting(streams):
        history, queries = _playing(calibration, [streams[number] for number in numbers], key)
        seen = history.observe_all([query for _, query in queries])
        for (place, _), observation in zip(queries, seen, strict=True):
            statistics[numbers[place]].append(observation.statistic)
    return statistics


def _meeting(streams: Sequence[Sequence[Query]]) -> list[list[int]]:
    """The numbers of the streams, in groups with more than a window between them."""
    window_s = Bounds().window_s
    groups, ended = list[list[int]](), -math.inf
    for number in sorted(range(len(streams)), key=lambda one: streams[one][0].now):
        if streams[number][0].now > ended + 2 * window_s:
            groups.append([])
        groups[-1].append(number)
        ended = max(ended, streams[number][-1].now)
    return groups


def _playing(
    calibration: Calibration, streams: Sequence[Sequence[Query]], key: bytes
) -> tuple[_Listening, list[tuple[int, Query]]]:
    """A history that forgets nothing and uses no id twice, and all queries in the order of time, with their stream."""
    numbered = [[(number, query) for query in stream] for number, stream in enumerate(streams)]
    queries = list(merge(*numbered, key=lambda pair: pair[1].now))
    span = max(1.0, queries[-1][1].now - queries[0][1].now)
    bounds = Bounds(
        entries=2 * len(queries) + LEAST_ENTRIES,
        max_bytes=2**40,
        window_s=2 * span,
        client_share=1.0,
        rotate_s=math.inf,
    )
    return _Listening(calibration, dimensions=queries[0][1].embedding.size, bounds=bounds, secret=key), queries
