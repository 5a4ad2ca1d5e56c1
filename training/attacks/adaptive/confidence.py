"""High-confidence attack: one wrong class after the other is made as likely as the ball allows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.attacks.adaptive.found import Traced, joined
from training.attacks.adaptive.loop import Loop
from training.attacks.adaptive.rules import Confident
from training.attacks.adaptive.target import Target, aim_at, held, views

__all__ = ["HighConfidence"]


@dataclass(frozen=True, kw_only=True)
class HighConfidence:
    """The loop with the rule `Confident` for every wrong class, or for that of `targets`.

    Source: Stutz et al. 2020 (arXiv 1910.06259), who keep the most confident version. We keep, as everywhere, the
        least suspicious one that fools, since the verdict does not ask for confidence.
    """

    loop: Loop

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
        return joined(
            [
                self.loop.run(Confident(targets=classes), target, images, aim, generator)
                for classes in (_wrong_classes(target, images, labels) if targets is None else [targets])
            ]
        )


def _wrong_classes(target: Target, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Every wrong class of each image, (N,) for each of L - 1 runs."""
    with held(target), torch.no_grad():
        classes = views(target, images[:1])[0].shape[1]
    return [(labels + other) % classes for other in range(1, classes)]
