"""Streams of benign queries, mixed into hours of traffic under a simulated clock.

Within an hour no two streams have a thing in common, so that queries are near each other for the reason that their kind
has and no other; between hours lies more than the history's window, so that things may come again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from service.detection.types import Bytes8
from training.history.kinds import KINDS, TRACKS
from training.history.pools import Things

__all__ = ["HOURS_APART_S", "Stream", "traffic"]

LENGTHS = (8, 48)
"""Images of a stream, from and to; the logarithm is uniform, but for tracks, which are as long as they are."""
STREAMS_AN_HOUR = 64
STARTS_S = 1800.0
"""Streams start within so many seconds of their hour."""
HOURS_APART_S = 4 * 3600.0
"""From the start of one hour to that of the next."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """Queries that belong together."""

    kind: str
    images: Bytes8
    """(n, H, W, C)."""
    clients: tuple[str, ...]
    """(n,)."""
    times: tuple[float, ...]
    """(n,) seconds, rising."""


def traffic(
    pool: Things, kinds: Sequence[str], *, seed: int, name: str = "", tracks: Things | None = None
) -> Iterator[Stream]:
    """A stream for each of the kinds, in that order.

    Args:
        pool: what they are made of.
        kinds: their names, in the order of time.
        seed: of every draw.
        name: set before the names of clients.
        tracks: what those of the kind `tracks` are made of; None takes the pool.
    """
    draws = np.random.default_rng(np.random.SeedSequence([seed, 81]))
    stocks = {False: _Stock(pool, draws), True: _Stock(pool if tracks is None else tracks, draws)}
    hour, in_hour = 0, 0
    for number, kind_name in enumerate(kinds):
        kind, stock = KINDS[kind_name], stocks[kind_name == TRACKS]
        count = round(float(np.exp(draws.uniform(*np.log(LENGTHS)))))
        count = min(count, len(pool) * max(1, kind.images_a_thing))
        wanted = kind.things(count)
        if in_hour == STREAMS_AN_HOUR or wanted > len(stock.unused):
            hour, in_hour = hour + 1, 0
        if wanted > len(stock.unused):
            stock.fill(draws)
        in_hour += 1
        chosen = [stock.things[stock.unused.pop()] for _ in range(wanted)]
        images = np.ascontiguousarray(kind.make(chosen, count, draws))
        clients = _clients(f"{name}{kind_name} {number}", len(images), draws, many=kind.has_many_clients)
        starts, pace = hour * HOURS_APART_S + draws.uniform(0, STARTS_S), draws.uniform(*kind.pace_s)
        times = starts + pace * np.arange(len(images))
        yield Stream(kind=kind_name, images=images, clients=clients, times=tuple(times.tolist()))


class _Stock:
    """Things, each drawn once before any comes again."""

    def __init__(self, things: Things, draws: np.random.Generator) -> None:
        self.things = things
        self.fill(draws)

    def fill(self, draws: np.random.Generator) -> None:
        self.unused = draws.permutation(len(self.things)).tolist()


def _clients(name: str, count: int, draws: np.random.Generator, *, many: bool) -> tuple[str, ...]:
    if not many:
        return (name,) * count
    return tuple(f"{name} {account}" for account in draws.integers(0, count, count).tolist())
