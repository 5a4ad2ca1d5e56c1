"""Cross-entropy on attacked images: plain adversarial training.

Source: Madry et al. 2018 (arXiv 1706.06083).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from training.losses.protocol import TrainingStep, Views

__all__ = ["AttackedCrossEntropy"]


@dataclass(frozen=True, kw_only=True)
class AttackedCrossEntropy:
    """CE(f(x'), y), mean over the batch."""

    label_smoothing: float = 0.0

    def images(self, step: TrainingStep) -> Sequence[Tensor]:
        """None beside the attacked ones."""
        return ()

    def __call__(self, step: TrainingStep, attacked: Views, others: Sequence[Views]) -> Tensor:
        """See LossTerm."""
        return F.cross_entropy(attacked.logits, step.labels, label_smoothing=self.label_smoothing)
