"""A term that keeps the logits of attacked images near those of their clean ones; the distance makes the method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from training.losses.protocol import TrainingStep, Views

__all__ = ["LogitAlignment"]


@dataclass(frozen=True, kw_only=True)
class LogitAlignment:
    """weight * distance(logits of clean images, logits of attacked ones)."""

    weight: float
    distance: Callable[[Tensor, Tensor], Tensor]
    """Of two sets of logits (N, classes): a scalar."""
    start_epoch: int = 0
    stop_gradient: bool = False
    """Holds the clean branch fixed."""

    def images(self, step: TrainingStep) -> Sequence[Tensor]:
        """The clean images, once the term has begun."""
        return (step.clean,) if step.epoch >= self.start_epoch else ()

    def __call__(self, step: TrainingStep, attacked: Views, others: Sequence[Views]) -> Tensor:
        """See LossTerm."""
        if not others:
            return attacked.logits.new_zeros(())
        clean = others[0].logits.detach() if self.stop_gradient else others[0].logits
        return self.weight * self.distance(clean, attacked.logits)
