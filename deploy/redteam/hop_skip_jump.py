"""HopSkipJump on "accepted and wrong", for one image, with OARS's additions; sees label and verdict alone."""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deploy.redteam.adaption import Bisection, redrawn
from deploy.redteam.search import Answer, Goal, Search, one, rounded
from service.detection.types import Bytes8, Float64s

__all__ = ["HopSkipJumpSearch"]

DEVIATIONS = Bisection(low=1.5, high=5.0, rounds=10, samples=20, target=0.05)
"""Of OARS: L2 lengths of a probe in [0, 1], for images of 3,072 values."""
OARS_VALUES = 3072
OARS_TRIES = 20
HALVINGS = 9


@dataclass(frozen=True, kw_only=True)
class HopSkipJumpSearch:
    """From a clean image of another class along the boundary, ever nearer to the attacked one.

    The search of `training.attacks.adaptive.BoundaryWalk`, where a probe is as long as all probes are and its verdict
    is always told; here its length is found by what is refused, what is refused is drawn again, and estimates are made
    of what is left.

    Source: Chen et al. 2020 (arXiv 1904.02144); Feng et al. 2023 (OARS). For 8-bit images probes are at least a level
    long and bisections stop at half a level.
    """

    norm: Literal["linf", "l2"] = "linf"
    probes: int = 100
    """Of the first turn; turn t has sqrt(t) times as many."""
    adapts: bool = False
    """Whether it finds the length of its probes by what is refused, and redraws those that are."""

    def search(self, goal: Goal, generator: np.random.Generator) -> Search:
        """See Attack; it goes on for ever, and what it asks about comes nearer."""
        place = yield from _start(goal)
        if place is None:
            return
        turn, length = 1, 0.0
        while True:
            place = yield from self._closer(place, goal)
            if self.adapts and not length:
                length = yield from self._length(place, goal, generator)
            probes = math.ceil(self.probes * math.sqrt(turn))
            towards = yield from self._normal(place, length, probes, goal, generator)
            place = yield from self._jumped(place, towards, turn, goal)
            turn += 1

    def size(self, change: Float64s) -> float:
        """Of a change, in levels."""
        return float(np.abs(change).max()) if self.norm == "linf" else float(np.linalg.norm(change))

    def _closer(self, place: Bytes8, goal: Goal) -> Generator[Bytes8, Sequence[Answer], Bytes8]:
        """Bisects between the clean image and the place; gives the nearest that was told to have won."""
        clean = goal.image.astype(np.float64)
        change = _way(place, goal)
        size, low, high, best = self.size(change), 0.0, 1.0, place
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if self.norm == "linf":
                tried = rounded(clean + np.clip(change, -middle * size, middle * size))
            else:
                tried = rounded(clean + middle * change)
            if goal.won((yield from one(tried))):
                high, best = middle, tried
            else:
                low = middle
        return best

    def _length(
        self, place: Bytes8, goal: Goal, generator: np.random.Generator
    ) -> Generator[Bytes8, Sequence[Answer], float]:
        """Of a probe, in levels."""
        unit = 255 * math.sqrt(place.size / OARS_VALUES)
        found = yield from DEVIATIONS.least(lambda value: self._probes(place, value * unit, 1, generator)[0])
        return found * unit

    def _probes(self, place: Bytes8, length: float, count: int, generator: np.random.Generator) -> Bytes8:
        """(count, H, W, C) around a place, so long as this in L2."""
        shape = (count, *place.shape)
        drawn = generator.uniform(-1, 1, shape) if self.norm == "linf" else generator.standard_normal(shape)
        drawn *= length / np.linalg.norm(drawn.reshape(count, -1), axis=1).reshape(-1, 1, 1, 1)
        return rounded(place + drawn)

    def _normal(
        self, place: Bytes8, length: float, probes: int, goal: Goal, generator: np.random.Generator
    ) -> Generator[Bytes8, Sequence[Answer], Float64s]:
        """The direction towards what wins, of size 1; what was refused counts for nothing."""
        usual = max(math.sqrt(place.size), self.size(_way(place, goal)) / place.size)
        tried, answers = yield from redrawn(
            lambda count: self._probes(place, length or usual, count, generator),
            probes,
            OARS_TRIES if self.adapts else 1,
        )
        told = np.array([not answer.is_refused for answer in answers])
        changes = tried[told].astype(np.float64) - place
        won = np.array([goal.won(answer) for answer in answers])[told].astype(np.float64)
        share = won.mean() if len(won) else 0.0
        weights = 2 * won - 1 if share in (0.0, 1.0) else won - share  # the mean as a baseline lowers the variance
        normal = np.tensordot(weights, changes, axes=1)
        return np.sign(normal) if self.norm == "linf" else normal / max(1e-12, float(np.linalg.norm(normal)))

    def _jumped(
        self, place: Bytes8, towards: Float64s, turn: int, goal: Goal
    ) -> Generator[Bytes8, Sequence[Answer], Bytes8]:
        """Leaves the boundary, for half the way as often as it does not land well."""
        way = self.size(_way(place, goal)) / math.sqrt(turn)
        for _ in range(HALVINGS):
            tried = rounded(place + way * towards)
            if goal.won((yield from one(tried))):
                return tried
            way /= 2
        return place


def _start(goal: Goal) -> Generator[Bytes8, Sequence[Answer], Bytes8 | None]:
    """The first of the attacker's own images that is accepted as another class."""
    for number in range(len(goal.others)):
        if goal.won((yield from one(goal.others[number]))):
            return np.asarray(goal.others[number])
    return None


def _way(place: Bytes8, goal: Goal) -> Float64s:
    """From the clean image to a place, in levels."""
    return np.asarray(place.astype(np.float64) - goal.image.astype(np.float64))
