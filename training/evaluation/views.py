"""What a run's model makes of 8-bit images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from service.detection.types import Bytes8
from training.attacks.rounding import from_8_bit
from training.evaluation.attacking import BATCH
from training.models import Classifier

__all__ = ["Views", "views_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """Logits and embeddings of N images, float32 on the CPU."""

    logits: Tensor
    """(N, L)."""
    embedding: Tensor
    """(N, D), unit L2 norm."""

    @property
    def labels(self) -> Tensor:
        """(N,) predicted classes."""
        return self.logits.argmax(dim=1)

    def take(self, rows: Tensor) -> "Views":
        """Those of some images."""
        return Views(logits=self.logits[rows], embedding=self.embedding[rows])


def views_of(model: Classifier, images: Bytes8) -> Views:
    """Runs the model, which is in eval mode, on (N, H, W, C) images, N >= 1."""
    device = next(model.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH].copy()  # torch warns of arrays that cannot be written, as files give
            logits, embedding = model.views(from_8_bit(batch).to(device))
            parts.append((logits.float().cpu(), embedding.cpu()))
    logits, embedding = (torch.cat(column) for column in zip(*parts, strict=True))
    return Views(logits=logits, embedding=embedding)
