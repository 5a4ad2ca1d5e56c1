"""Square attack on scores, for one image, with OARS's additions; no gradients."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deploy.redteam.adaption import Bisection, redrawn
from deploy.redteam.search import Answer, Goal, Search, rounded
from service.detection.types import Bytes8, Float64s
from training.attacks.square import Square

__all__ = ["SquareSearch"]

COUNTS = Bisection(low=10, high=100, rounds=10, samples=5, target=0.0, is_whole=True)
SIDES = Bisection(low=1, high=32, rounds=10, samples=10, target=0.5, is_whole=True)
"""Of OARS, for images of 32 x 32."""
OARS_TRIES = 300
OARS_SIDE = 32


@dataclass(frozen=True, kw_only=True)
class SquareSearch:
    """Random search at the corners of the Linf ball: squares are changed, and what helps is kept.

    The schedule of sizes is that of `training.attacks.Square`. That one takes a batch of images through a model in
    step, and knows neither answers that are refused nor proposals that change while it runs, so the search is written
    here again.

    Source: Andriushchenko et al. 2020 (arXiv 1912.00049); Feng et al. 2023 (OARS).
    """

    queries: int
    """For which the schedule is made."""
    count: int = 1
    """Squares that a proposal changes."""
    smallest: int = 1
    """Side of a square at least, in pixels."""
    adapts: bool = False
    """Whether it finds `count` and `smallest` by what is refused, and redraws what is."""

    def search(self, goal: Goal, generator: np.random.Generator) -> Search:
        """See Attack; every proposal is in the ball."""
        tries = OARS_TRIES if self.adapts else 1
        images, answers = yield from redrawn(lambda count: _stripes(goal, count, generator), 1, tries)
        best, least = images[0], goal.loss(answers[0])
        own = self
        if self.adapts:
            own = yield from self._adapted(best, goal, generator)
        sizes = Square(eps=1.0, queries=self.queries)
        step = 0
        while True:
            side = own.side(sizes.share(step), goal.image.shape)
            kept = best

            def propose(count: int, kept: Bytes8 = kept, side: int = side) -> Bytes8:
                return np.stack([_changed(kept, goal, own.count, side, generator) for _ in range(count)])

            images, answers = yield from redrawn(propose, 1, tries)
            loss = goal.loss(answers[0])
            if loss < least:
                best, least = images[0], loss
            step += not answers[0].is_refused

    def side(self, share: float, shape: tuple[int, ...]) -> int:
        """Of squares that together cover this share of the pixels of an image of this shape."""
        height, width = shape[:2]
        side = round((share * height * width / self.count) ** 0.5)
        return int(min(max(side, self.smallest, 1), height, width))

    def _adapted(
        self, best: Bytes8, goal: Goal, generator: np.random.Generator
    ) -> Generator[Bytes8, Sequence[Answer], "SquareSearch"]:
        shape = goal.image.shape
        share = Square(eps=1.0, queries=self.queries).share(0)
        edge = min(shape[:2])
        counts = yield from COUNTS.least(
            lambda value: _changed(
                best, goal, int(value), replace(self, count=int(value)).side(share, shape), generator
            )
        )
        sides = replace(SIDES, high=max(2, round(SIDES.high * edge / OARS_SIDE)))
        smallest = yield from sides.least(
            lambda value: _changed(best, goal, int(counts), min(int(value), edge), generator)
        )
        return replace(self, count=int(counts), smallest=int(smallest))


def _stripes(goal: Goal, count: int, generator: np.random.Generator) -> Bytes8:
    """Each column of each channel moved by the whole budget, up or down: (count, H, W, C)."""
    _, width, channels = goal.image.shape
    signs: Float64s = generator.choice([-1.0, 1.0], (count, 1, width, channels))
    return rounded(goal.image + goal.eps * signs)


def _changed(kept: Bytes8, goal: Goal, count: int, side: int, generator: np.random.Generator) -> Bytes8:
    """The image with so many squares moved by the whole budget, each channel up or down."""
    height, width, channels = goal.image.shape
    up, down = (rounded(goal.image.astype(np.float64) + change) for change in (goal.eps, -goal.eps))
    corners = generator.integers(0, (height - side + 1, width - side + 1), (count, 2)).tolist()
    rises = generator.integers(0, 2, (count, channels), dtype=bool)
    made = kept.copy()
    for (top, left), is_up in zip(corners, rises, strict=True):
        window = np.s_[top : top + side, left : left + side]
        moved = np.where(is_up, up[window], down[window])
        if count == 1 and (moved == kept[window]).all():
            moved = np.where(is_up, down[window], up[window])
        made[window] = moved
    return made
