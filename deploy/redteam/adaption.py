"""What OARS adds to an attack: parameters by bisection against the share of probes that were recognised, and redraws.

Source: Feng et al. 2023 (OARS, CCS 2023). It lives on answers that say which queries were recognised: where they
are, the attack moves farther with each proposal, and draws anew what was refused.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.redteam.search import Answer
from service.detection.types import Bytes8

__all__ = ["Bisection", "redrawn"]


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """How a parameter is found."""

    low: float
    high: float
    rounds: int
    samples: int
    """Probes of a round."""
    target: float
    """Share of them that may be recognised."""
    is_whole: bool = False

    def least(self, probe: Callable[[float], Bytes8]) -> Generator[Bytes8, Sequence[Answer], float]:
        """The least value whose probes are recognised seldom enough, `high` where there is none.

        Args:
            probe: a value to an image (H, W, C), drawn with it.
        """
        low, high = self.low, self.high
        for _ in range(self.rounds):
            middle = (low + high) / 2
            if self.is_whole:
                middle = float(int(middle))
                if middle in (low, high):
                    break
            answers = yield np.stack([probe(middle) for _ in range(self.samples)])
            known = float(np.mean([answer.is_flagged for answer in answers]))
            low, high = (low, middle) if known <= self.target else (middle, high)
        return high


def redrawn(
    draw: Callable[[int], Bytes8], count: int, tries: int
) -> Generator[Bytes8, Sequence[Answer], tuple[Bytes8, list[Answer]]]:
    """Draws proposals, and those of which nothing was said again.

    Args:
        draw: a number to so many proposals (N, H, W, C).
        count: wanted.
        tries: of each, at least 1; what is refused in the last one is given with its answer.

    Returns:
        (count, H, W, C) proposals and their answers.
    """
    images = draw(count)
    answers = list((yield images))
    for _ in range(tries - 1):
        rows = [row for row, answer in enumerate(answers) if answer.is_refused]
        if not rows:
            break
        again = draw(len(rows))
        images[rows] = again
        for row, answer in zip(rows, (yield again), strict=True):
            answers[row] = answer
    return images, answers
