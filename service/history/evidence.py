"""How unlike benign traffic a component of near queries is.

What tells a search from a benign burst. Frames of a video, augmentations and photographs of one thing are near each
other, too, so that queries are near, fast or from many clients is no evidence at all: a benign stream may be any of
these, and an attacker chooses his pace and his accounts. What an attacker cannot leave out is that he learns where the
answer changes, by small steps, and many of them:

* **label flips** over a small distance: a search for the decision boundary crosses it again and again by steps as small
  as it can make them, while frames of a video change their label seldom, and when they have changed much;
* **verdict flips**, the same at the boundary between clean and adversarial;
* **answers near a boundary**, of a small margin or of a p-value near the verdict's level;
* **margins that fall**: a search goes where the margin is smaller, so a new one is smaller than most of those before
  it, while frames, photographs and augmentations come in any order: of `SAMPLE` earlier margins drawn at random and a
  new one, each is as often the least. A video may fade towards another thing, too, but few do;
* **more than benign streams have**: a client's component that is larger than nearly all at the calibration. Videos are
  large, so this counts for nothing within the length of the calibration's streams, and for much beyond it. Among
  everyone's it counts for nothing: an image may be popular;
* **pixels repeated in part**: whoever edits one image again and again leaves the rest of its pixels as they were, to
  the level, which cameras, compressors and augmentations do much less.

Each query that joins a component shows some of these; it counts -log of how often a benign query that joins a component
shows as much, and adds what that exceeds an allowance. The allowance is such that the evidence of nearly all benign
components falls, each with what it has of its own: a camera before a dark scene repeats pixels with every frame. The
evidence is a cumulative sum (Page 1954): it never falls below 0, so that nobody gathers credit in advance, and falls by
no more than `FALL` with a harmless query, so that diluting a search costs queries for each of its own. `FALL` is
between two evils: with a smaller one the allowance has to be so large that what most queries of a search add is lost.

Nothing is fitted on attacks. `service.history.calibration` ranks the sums.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.history.components import SAMPLE

__all__ = ["LEAST_EVENTS", "LEAST_SIZE", "STRAY", "Edges", "Join", "Rates"]

LEAST_SIZE = 5
"""Different queries below which a component is never flagged: a near query or two are no search."""
LEAST_EVENTS = 4
"""Queries that added to its evidence, below which it is not either, however rare each of them is."""
FALL = 1.0
"""Nats by which a query lowers the evidence of its component at most."""
FARTHEST = 2.0
"""Times the usual distance, at which a query may join a component with much evidence."""
SHARE = 0.95
"""Of benign components, those whose evidence falls."""
LEAST_ALLOWANCE = 1.0
STRAY = 8
"""Of a client's queries one in so many may hang together by chance: each view takes some unrelated ones for near."""


@dataclass(frozen=True, kw_only=True)
class Edges:
    """When two queries are near each other, and an answer is near a boundary."""

    matches: int
    """Keys that two sketches share at least."""
    radius: float
    """Between the embeddings of two queries at most, among `entries` kept ones."""
    entries: int
    """Queries among which the two were measured."""
    dimension: float
    """Of the embeddings as they lie: among n times as many queries the nearest is n^(1 / dimension) times as near."""
    margin: float
    """An answer of at most this is near the label's boundary."""
    p_value: float
    """A p-value of at most this is near the verdict's boundary."""
    alpha: float
    """The level of the verdict."""
    beside: float
    """Between two near-boundary queries of one client at most; among everyone's, between two that share keys."""

    def beside_of(self, evidence: float) -> float:
        """The same of a component with so much evidence, which outweighs that more unrelated queries are as near.

        >>> edges = Edges(matches=9, radius=0.4, entries=9, dimension=2.0, margin=0, p_value=0, alpha=0, beside=0.5)
        >>> edges.beside_of(0.0), edges.beside_of(9.0)
        (0.5, 1.0)
        """
        return self.beside * math.exp(min(math.log(FARTHEST), evidence / self.dimension))

    @property
    def farthest_beside(self) -> float:
        """The most that `beside_of` gives."""
        return self.beside_of(math.inf)

    def radius_among(self, kept: int) -> float:
        """The radius among so many kept queries, so that as few benign ones are near by chance.

        >>> edges = Edges(matches=9, radius=0.4, entries=100, dimension=2.0, margin=0, p_value=0, alpha=0, beside=0)
        >>> edges.radius_among(100), edges.radius_among(400)
        (0.4, 0.2)
        """
        return self.radius * min(1.0, math.pow(self.entries / max(1, kept), 1 / self.dimension))


@dataclass(frozen=True, slots=True)
class Join:
    """A query that joined a component."""

    matches: int
    """Keys shared with the nearest sketch, where that is an edge; else 0."""
    distance: float
    """Of the embeddings, to the nearest neighbour in the component."""
    is_label_flip: bool
    is_verdict_flip: bool
    is_near: bool
    rank: int
    """How many of `SAMPLE` earlier margins of the component are at most as large; -1 where it has fewer."""
    size: int
    """Of a client's own component before, less one in `STRAY` of what is kept of him; 0 of everyone's."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How benign queries join components."""

    joins: int
    matches: tuple[int, ...]
    """Of those that repeated pixels, rising."""
    label_flips: tuple[float, ...]
    """Distances of those that flipped the label, rising."""
    verdict_flips: tuple[float, ...]
    near: int
    """Those whose answer was near a boundary."""
    ranks: tuple[int, ...]
    """How many had each rank."""
    sizes: tuple[int, ...]
    """Of own components that were joined, rising; those above 0."""
    allowance: float = 0.0
    """In nats."""

    @classmethod
    def of(cls, components: Sequence[Sequence[Join]]) -> "Rates":
        """The rates of the joins of benign components, and the allowance that follows from them."""
        joins = [join for component in components for join in component]
        plain = cls(
            joins=len(joins),
            matches=tuple(sorted(join.matches for join in joins if join.matches)),
            label_flips=tuple(sorted(join.distance for join in joins if join.is_label_flip)),
            verdict_flips=tuple(sorted(join.distance for join in joins if join.is_verdict_flip)),
            near=sum(join.is_near for join in joins),
            ranks=tuple(np.bincount([join.rank for join in joins if join.rank >= 0], minlength=SAMPLE + 1).tolist()),
            sizes=tuple(sorted(join.size for join in joins if join.size)),
        )
        wanted = [_allowance([plain.counts(join) for join in each]) for each in components if len(each) >= LEAST_SIZE]
        least = float(np.quantile(wanted, SHARE, method="higher")) if wanted else 0.0
        return replace(plain, allowance=max(LEAST_ALLOWANCE, least))

    def adds(self, join: Join, *, crowd: float = 1.0) -> float:
        """What a join adds to the evidence, in nats; see `counts`."""
        return max(-FALL, self.counts(join, crowd=crowd) - self.allowance)

    def counts(self, join: Join, *, crowd: float = 1.0) -> float:
        """How unlike a benign join it is, in nats.

        Args:
            crowd: how many times as many queries are kept as at the calibration; as many times more often do sketches
                share keys by chance.
        """
        nats = 0.0
        if join.matches:
            nats += self._nats(len(self.matches) - bisect_left(self.matches, join.matches), crowd)
        if join.is_label_flip:
            nats += self._nats(bisect_right(self.label_flips, join.distance))
        if join.is_verdict_flip:
            nats += self._nats(bisect_right(self.verdict_flips, join.distance))
        if join.is_near:
            nats += self._nats(self.near)
        if join.size:
            larger = len(self.sizes) - bisect_left(self.sizes, join.size)
            nats -= math.log((1 + larger) / (1 + len(self.sizes)))
        if join.rank >= 0:
            nats -= math.log((1 + sum(self.ranks[: join.rank + 1])) / (1 + sum(self.ranks)))
        return nats

    def _nats(self, as_strong: int, crowd: float = 1.0) -> float:
        return -math.log(min(1.0, crowd * (1 + as_strong) / (1 + self.joins)))


def _allowance(counts: Sequence[float]) -> float:
    """The least with which the sum of a component's counts falls."""
    values = np.array(counts)
    low, high = 0.0, float(values.max())
    for _ in range(40):
        middle = (low + high) / 2
        falls = np.maximum(values - middle, -FALL).sum() <= 0
        low, high = (low, middle) if falls else (middle, high)
    return high
