"""Lagrangian attack over a grid of weights, then over weights between, image by image."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from service.errors import SetupError
from training.attacks.adaptive.found import Traced, joined
from training.attacks.adaptive.loop import Loop
from training.attacks.adaptive.rules import Lagrangian
from training.attacks.adaptive.target import Target, aim_at
from training.checks import at_least, require

__all__ = ["WEIGHTS", "LagrangianSweep"]

WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class LagrangianSweep:
    """The loop for each weight of the suspicion, then bisections in the logarithm of the weight.

    The suspicion falls as the weight grows, until the label is no longer crossed. So the bisection of an image runs
    between the largest weight that crossed and the next one, which did not; at the ends of the grid, between its end
    and a tenth or ten times that.

    Source: the constant's search of Carlini and Wagner 2017 (arXiv 1608.04644), with the suspicion in the distance's
        place. No threshold enters, so one sweep serves all of them.
    """

    loop: Loop
    scale: float = 1.0
    """The unit of the suspicion, its `clean_spread`."""
    weights: tuple[float, ...] = WEIGHTS
    """In rising order."""
    bisections: int = 8
    saturates: bool = True
    """See Lagrangian; the battery runs both forms."""
    guide: Target | None = None
    """Whose suspicion is descended; None for the target's."""

    def __post_init__(self) -> None:
        at_least(0, "bisections", self.bisections)
        require(0 < self.scale < float("inf"), "scale", "a number above 0", self.scale)
        rising = all(low < high for low, high in pairwise(self.weights))
        if not (self.weights and rising and self.weights[0] > 0 and self.weights[-1] < float("inf")):
            raise SetupError(f"weights: expected numbers above 0 in rising order, got {self.weights}; sort them")

    def __call__(
        self,
        target: Target,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        *,
        targets: Tensor | None = None,
    ) -> Traced:
        """See AdaptiveAttack."""
        aim = aim_at(labels, targets)

        def run(weights: Tensor) -> Traced:
            rule = Lagrangian(weight=weights, scale=self.scale, saturates=self.saturates)
            return self.loop.run(rule, target, images, aim, generator, guide=self.guide)

        results = [run(torch.full((len(images),), weight).to(images)) for weight in self.weights]
        low, high = self._brackets(torch.stack([_crossed(result) for result in results]), images)
        for _ in range(self.bisections):
            middle = (low * high).sqrt()
            results.append(run(middle))
            crossed = _crossed(results[-1])
            low, high = torch.where(crossed, middle, low), torch.where(crossed, high, middle)
        return joined(results)

    def _brackets(self, crossed: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (N,) below and above the change, from whether each weight crossed, (weights, N)."""
        ends = (self.weights[0] / 10, *self.weights, 10 * self.weights[-1])
        every = torch.tensor(ends).to(images)
        places = torch.arange(1, len(self.weights) + 1, device=images.device)[:, None]
        largest = torch.where(crossed, places, 0).amax(dim=0)  # 0 where no weight crossed
        return every[largest], every[largest + 1]


def _crossed(result: Traced) -> Tensor:
    """(N,) whether an iterate of a run's later half fooled: a start that did by chance says nothing of the weight."""
    later = result.trace[:, result.trace.shape[1] // 2 :]
    return torch.isfinite(later).flatten(0, 1).any(dim=0)
