"""What an attack is here: a generator that gives images to ask about and is sent the answers.

    def search(goal, generator):                # a Search
        answers = yield images                  # (N, H, W, C), one answer for each

An attack by itself knows no server, no history and no account: whoever drives it sends its images somewhere. `driven`
is the plain loop for a callable; `deploy.redteam.running` drives many at once, so that their images share batches.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from service.detection.types import Bytes8, Float64s, Integers

__all__ = ["Answer", "Attack", "Goal", "Oracle", "Search", "driven", "linf", "one", "rounded"]

LEAST = 1e-12
"""A probability that is shown as 0 is taken for this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What the caller gets to know of one image."""

    is_refused: bool = False
    """Nothing is said of the image."""
    is_flagged: bool = False
    """The caller is told that the history speaks against the query, by a refusal or a flag."""
    is_cut_off: bool = False
    """The account is closed: nothing is answered any more."""
    label: int = -1
    is_accepted: bool = False
    """By the image's own verdict."""
    probabilities: Float64s | None = None
    """(L,); None where the server shows none."""
    p_value: float | None = None
    excess: float | None = None
    """By how much the statistic of the verdict is above its threshold; what raw scores tell at most."""
    alpha: float = 0.0
    """The level of the verdict."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Goal:
    """An image that is to be read wrongly, and accepted."""

    image: Bytes8
    """(H, W, C)."""
    label: int
    eps: int
    """Largest change of a value, in levels of 1/255."""
    others: Bytes8
    """(K, H, W, C) clean images of other classes that the attacker has, K >= 1."""

    def won(self, answer: Answer) -> bool:
        """Whether the answer is "another class, and clean"."""
        return not answer.is_refused and answer.is_accepted and answer.label != self.label

    def loss(self, answer: Answer) -> float:
        """How far an answer is from that, max(m, 0) + max(g, 0); infinite where nothing is said.

        m is the margin of the true class over the next in log-probability, g what is above the verdict's threshold: of
        the statistic where it can be known, else of the p-value, in steps.
        """
        if answer.is_refused:
            return math.inf
        if answer.probabilities is None:
            return 0.0 if self.won(answer) else 1.0
        shown = np.log(np.maximum(answer.probabilities, LEAST))
        margin = shown[self.label] - np.delete(shown, self.label).max()
        return max(float(margin), 0.0) + self._above(answer)

    def _above(self, answer: Answer) -> float:
        if answer.is_accepted:
            return 0.0
        if answer.excess is not None:
            return max(answer.excess, 0.0)
        return 0.0 if answer.p_value is None else max(math.log(answer.alpha / answer.p_value), 0.0)

    def clipped(self, images: Float64s) -> Float64s:
        """(..., H, W, C) images put into the ball and the box."""
        low = np.maximum(self.image.astype(np.float64) - self.eps, 0)
        high = np.minimum(self.image.astype(np.float64) + self.eps, 255)
        return np.clip(images, low, high)


Search: TypeAlias = Generator[Bytes8, Sequence[Answer], None]
"""Ends when it knows no further; whoever drives it may end it at any time."""
Oracle: TypeAlias = Callable[[Bytes8], Sequence[Answer]]
"""(N, H, W, C) images to N answers."""


class Attack(Protocol):
    """Makes a search for a goal."""

    def search(self, goal: Goal, generator: np.random.Generator) -> Search:
        """The search, with this source of random numbers."""


def driven(search: Search, oracle: Oracle, queries: int) -> int:
    """Asks an oracle all that a search wants to know, at most so many images; gives how many it asked about."""
    asked = 0
    try:
        images = next(search)
        while asked < queries:
            asked += len(images)
            images = search.send(oracle(images))
    except StopIteration:
        pass
    search.close()
    return asked


def one(image: Float64s | Bytes8) -> Generator[Bytes8, Sequence[Answer], Answer]:
    """Asks about one image (H, W, C), after rounding."""
    answers = yield rounded(image[None])
    return answers[0]


def rounded(images: Float64s | Bytes8) -> Bytes8:
    """The nearest images of 8 bits."""
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def linf(images: Bytes8, clean: Bytes8) -> Integers:
    """(N, H, W, C) images to (N,) their largest changes, in levels."""
    changes = np.abs(images.astype(np.int64) - clean.astype(np.int64))
    return np.asarray(changes.reshape(len(images), -1).max(axis=1))
