"""A guard against catastrophic overfitting: one-step training that suddenly resists one-step attacks only.

A few times an epoch it attacks images of the selection part with several steps. When their accuracy is below 0.4 of the
best so far twice in a row, the last weights that were still good come back, and the run goes on with a multi-step
attack. Once is not enough: early in training a network may dip so far and recover, while the collapse stays.

Source: the phenomenon and its sign, a sudden fall of PGD accuracy, are of Wong et al. 2020 (arXiv 2001.03994), who stop
there; going back and on with PGD is ours.
"""

from typing import Any, Literal

import torch

from training.attacks import Pgd
from training.data.batches import ImageSource
from training.measure import measure
from training.methods import AttackConfig
from training.models import Classifier
from training.processes import ALONE, Processes

__all__ = ["Guard"]

CHECKS_AN_EPOCH = 4
IMAGES = 128
STEPS = 5
COLLAPSE = 0.4
GOOD = 0.8  # what is worse may be half way into the collapse
LEARNED = 0.15  # below it there is nothing yet that could collapse


class Guard:
    """Watches a run.

    Attributes:
        tripped_at: the step after which PGD accuracy was found collapsed; None while all is well.
    """

    def __init__(self, config: AttackConfig, source: ImageSource, seed: int, processes: Processes = ALONE) -> None:
        self.tripped_at: int | None = None
        self._attack = Pgd(norm=config.norm, eps=config.eps, steps=STEPS)
        self._source = source
        self._positions = torch.arange(0, len(source), max(1, len(source) // IMAGES))[:IMAGES]
        self._seed = seed
        self._processes = processes
        self._best = 0.0
        self._is_low = False  # at the last look
        self._good: dict[str, Any] | None = None

    @staticmethod
    def is_due(batch: int, steps_an_epoch: int) -> bool:
        """Whether the guard looks after this step of an epoch, counted from 1."""
        quarter = batch * CHECKS_AN_EPOCH // steps_an_epoch
        return quarter > (batch - 1) * CHECKS_AN_EPOCH // steps_an_epoch

    def look(self, model: Classifier, steps_done: int) -> Literal["good", "poor", "collapsed"]:
        """Measures; good weights are worth going back to, and collapsed is said only once."""
        measured = self._processes.decided(
            lambda: measure(model, self._source, self._positions, self._attack, self._seed)
        )
        accuracy = measured.attacked
        was_low = self._is_low
        self._is_low = self._good is not None and self._best > LEARNED and accuracy < COLLAPSE * self._best
        if was_low and self._is_low:
            self.tripped_at = steps_done
            return "collapsed"
        self._best = max(self._best, accuracy)
        return "good" if accuracy >= GOOD * self._best else "poor"

    def keep(self, good: dict[str, Any]) -> None:
        """Remembers what to go back to."""
        self._good = good

    @property
    def good(self) -> dict[str, Any]:
        """What keep() was last given; asked for only after look() said collapsed."""
        assert self._good is not None
        return self._good

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"tripped_at": self.tripped_at, "best": self._best, "is_low": self._is_low, "good": self._good}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes back to where state() was taken."""
        self.tripped_at, self._best, self._good = state["tripped_at"], state["best"], state["good"]
        self._is_low = state["is_low"]
