"""NES: gradients of the shown scores from pairs of noise, for one image, with OARS's additions."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.redteam.adaption import Bisection
from deploy.redteam.search import Answer, Goal, Search, one, rounded
from service.detection.types import Bytes8

__all__ = ["NesSearch"]

OARS_TRIES = 20


@dataclass(frozen=True, kw_only=True)
class NesSearch:
    """Steps along the sign of an estimated gradient, in the Linf ball.

    Source: Ilyas et al. 2018 (arXiv 1804.08598), with momentum 0.9; noise of at least a level, since less is rounded
    away. The range of the noise that OARS's bisection looks through is ours.
    """

    pairs: int = 25
    """Of probes for each step, one on each side."""
    noise: float = 2.0
    """Standard deviation of a probe, in levels."""
    step: float = 0.25
    """In budgets."""
    momentum: float = 0.9
    adapts: bool = False
    """Whether it finds `noise` by what is refused, and redraws probes that are."""

    def search(self, goal: Goal, generator: np.random.Generator) -> Search:
        """See Attack; steps are in the ball, probes are around them."""
        place = goal.image.astype(np.float64)
        direction, noise = np.zeros(goal.image.shape), self.noise
        if self.adapts:
            wider = Bisection(low=self.noise, high=16 * self.noise, rounds=6, samples=10, target=0.05)
            start = place
            noise = yield from wider.least(
                lambda value: rounded(start + value * generator.standard_normal(start.shape))
            )
        while True:
            gradient = yield from self._gradient(place, noise, goal, generator)
            direction = self.momentum * direction + gradient
            place = goal.clipped(place - self.step * goal.eps * np.sign(direction))
            yield from one(place)

    def _gradient(
        self, place: np.ndarray, noise: float, goal: Goal, generator: np.random.Generator
    ) -> Generator[Bytes8, Sequence[Answer], np.ndarray]:
        """(H, W, C) sum of the noise, each by how much it raises the loss; refused pairs count for nothing."""
        gradient = np.zeros(place.shape)
        wanted = self.pairs
        for _ in range(OARS_TRIES if self.adapts else 1):
            drawn = noise * generator.standard_normal((wanted, *place.shape))
            tried = rounded(np.concatenate([place + drawn, place - drawn]))
            answers = yield tried
            losses = np.array([goal.loss(answer) for answer in answers]).reshape(2, wanted)
            told = np.isfinite(losses).all(axis=0)
            rises = losses[0, told] - losses[1, told]
            steps = (tried[:wanted][told].astype(np.float64) - tried[wanted:][told]) / 2  # as they were asked about
            gradient += np.tensordot(rises, steps, axes=1)
            wanted -= int(told.sum())
            if not wanted:
                break
        return gradient
