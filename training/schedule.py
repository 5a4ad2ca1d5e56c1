"""Learning rates as a pure function of the step, so that resuming needs no state."""

import math
from typing import Literal

__all__ = ["learning_rate"]

WARM_UP = 0.25  # share of a one-cycle run in which the rate rises


def learning_rate(schedule: Literal["constant", "cosine", "one-cycle"], peak: float, step: int, steps: int) -> float:
    """The rate of step 0 to steps - 1.

    one-cycle: a straight rise from peak / 25 over the first quarter, then half a cosine down to near 0.

    Source: Smith and Topin 2018 (arXiv 1708.07120) for one-cycle; no momentum cycle here.
    """
    position = (step + 0.5) / steps
    if schedule == "constant":
        return peak
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * position))
    if position < WARM_UP:
        return peak * (0.04 + 0.96 * position / WARM_UP)
    return peak * 0.5 * (1 + math.cos(math.pi * (position - WARM_UP) / (1 - WARM_UP)))
