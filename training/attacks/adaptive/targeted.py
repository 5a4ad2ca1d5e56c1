"""An attack led to several wrong classes in turn, the likeliest first."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.attacks.adaptive.found import Traced, joined
from training.attacks.adaptive.loop import AdaptivePgd
from training.attacks.adaptive.target import Target, held, views
from training.checks import at_least

__all__ = ["MultiTargeted"]


@dataclass(frozen=True, kw_only=True)
class MultiTargeted:
    """One attack with each of the likeliest wrong classes as target; the least suspicious version that fools counts.

    Led to one class an attack does not turn back and forth between two, and detectors look at the predicted class: what
    is suspicious as one may pass as another.

    Source: several targets as in Gowal et al. 2019 (arXiv 1910.09338); Bryniarski et al. 2021 (arXiv 2106.15023) attack
        detectors with one target.
    """

    attack: AdaptivePgd
    classes: int = 5
    """Wrong classes, at most."""

    def __post_init__(self) -> None:
        at_least(1, "classes", self.classes)

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
        chosen = self._likeliest(target, images, labels) if targets is None else [targets]
        return joined([self.attack(target, images, labels, generator, targets=each) for each in chosen])

    def _likeliest(self, target: Target, images: Tensor, labels: Tensor) -> list[Tensor]:
        """Wrong classes of each image, (N,) for each run."""
        with held(target), torch.no_grad():
            logits, _ = views(target, images)
        wrong = logits.scatter(1, labels[:, None], -torch.inf)
        count = min(self.classes, logits.shape[1] - 1)
        return list(wrong.topk(count, dim=1).indices.unbind(dim=1))
