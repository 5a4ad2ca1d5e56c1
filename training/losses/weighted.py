"""A term that counts more or less than it says itself."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from training.losses.protocol import LossTerm, TrainingStep, Views

__all__ = ["Weighted"]


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """weight times another term."""

    weight: float
    term: LossTerm

    def images(self, step: TrainingStep) -> Sequence[Tensor]:
        """Those of the term."""
        return self.term.images(step)

    def __call__(self, step: TrainingStep, attacked: Views, others: Sequence[Views]) -> Tensor:
        """See LossTerm."""
        return self.weight * self.term(step, attacked, others)
