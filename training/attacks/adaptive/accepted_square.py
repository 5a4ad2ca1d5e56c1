"""Square attack on "accepted and wrong": for a caller who sees logits and suspicion but no gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.attacks.adaptive.found import Found
from training.attacks.adaptive.oracle import Oracle, found_by
from training.attacks.adaptive.target import Target, held
from training.attacks.square import Square
from training.checks import require

__all__ = ["AcceptedSquare"]

_TINY = 1e-12
"""Keeps a margin of exactly 0, which does not fool, from passing for a success."""


@dataclass(frozen=True, kw_only=True)
class AcceptedSquare:
    """Random search that lowers max(margin, 0) + max(suspicion - threshold, 0) / scale.

    Unlike the attacks that descend it is for one threshold: an image leaves once it fools and is accepted there.

    Source: Andriushchenko et al. 2020 (arXiv 1912.00049), with the detector's shortfall added to the margin.
    """

    square: Square
    threshold: float
    """The largest suspicion that is accepted."""
    scale: float = 1.0
    """The unit of the suspicion, such as its `clean_spread`."""
    rounds: bool = True
    """Whether the target sees 8-bit images."""

    def __post_init__(self) -> None:
        require(abs(self.threshold) < float("inf"), "threshold", "a finite number", self.threshold)
        require(0 < self.scale < float("inf"), "scale", "a number above 0", self.scale)

    def __call__(
        self,
        target: Target,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        *,
        targets: Tensor | None = None,
    ) -> Found:
        """See AdaptiveAttack.

        `steps` of the result are the queries that each image took: who succeeded within fewer is told by them.
        """
        images = images.detach()
        oracle = Oracle(
            target,
            images,
            labels,
            targets,
            threshold=self.threshold,
            norm=self.square.norm,
            eps=self.square.eps,
            rounds=self.rounds,
        )

        def losses(tried: Tensor, rows: Tensor) -> Tensor:
            answer = oracle.ask(tried, rows)
            excess = (answer.suspicion - self.threshold).clamp_min(0) / self.scale
            return torch.where(answer.won, 0.0, -(answer.margins.clamp_min(0) + excess).clamp_min(_TINY))

        with held(target), torch.no_grad():
            tried, _, queries = self.square.climb(losses, images, generator)
            every = torch.arange(len(images), device=images.device)
            return found_by(oracle.ask(tried, every), queries)
