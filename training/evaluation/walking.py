"""The walk along the boundary of "accepted and wrong", from clean images that are known to be accepted."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.attacks.adaptive import BoundaryWalk, Found, Target
from training.attacks.rounding import from_8_bit
from training.evaluation.aimed import Known
from training.evaluation.entries import NormName

__all__ = ["WalkFromKnown"]


@dataclass(frozen=True, kw_only=True, eq=False)
class WalkFromKnown:
    """BoundaryWalk, each image from the nearest known one of another class that is accepted."""

    known: Known
    norm: NormName
    eps: float
    alpha: float
    """False-positive rate at which images are accepted."""
    threshold: float
    """The largest suspicion that is accepted there."""
    turns: int
    probes: int

    def __call__(
        self,
        target: Target,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        *,
        targets: Tensor | None = None,
    ) -> Found:
        """See AdaptiveAttack."""
        walk = BoundaryWalk(
            norm=self.norm,
            eps=self.eps,
            threshold=self.threshold,
            starts=self._starts(images, labels, targets),
            turns=self.turns,
            probes=self.probes,
        )
        return walk(target, images, labels, generator, targets=targets)

    def _starts(self, images: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        known = from_8_bit(self.known.images).to(images)
        classes = torch.from_numpy(self.known.labels).to(labels)
        accepted = torch.from_numpy(self.known.p_values > self.alpha).to(images.device)
        distances = torch.cdist(images.flatten(1), known.flatten(1))  # (N, M)
        fits = classes != labels[:, None] if targets is None else classes == targets[:, None]
        # Where no known image fits, its start is one that does not; the walk gives that image up.
        return known[distances.masked_fill(~(fits & accepted), torch.inf).argmin(dim=1)]
