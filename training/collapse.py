"""Whether an embedding still tells images apart: strong attacks in metric learning may drive all images to one point.

The mean distance of pairs is what retrieval lives on. The variance, summed over dimensions, is 0 at a point and nearly
1 where embeddings of unit length point in all directions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from service.errors import SetupError
from training.data.batches import ImageSource
from training.models import Classifier

__all__ = ["Spread", "checked_spread", "spread_of"]

IMAGES = 512


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of embeddings of unit length."""

    distance: float
    """Mean Euclidean distance of pairs of different images, from 0 to 2."""
    variance: float
    """Summed over dimensions, from 0 to 1."""

    @classmethod
    def of(cls, embeddings: Tensor) -> "Spread":
        """Of embeddings (N, D), N >= 2."""
        embeddings = embeddings.double()
        centred = embeddings - embeddings.mean(dim=0)
        return cls(distance=float(torch.pdist(embeddings).mean()), variance=float(centred.square().sum(dim=1).mean()))


@torch.no_grad()
def spread_of(model: Classifier, source: ImageSource) -> Spread:
    """Of at most 512 evenly chosen clean images, in eval mode; the model's mode comes back."""
    was_training = model.training
    model.eval()
    positions = torch.arange(0, len(source), max(1, len(source) // IMAGES))[:IMAGES]
    embeddings = model.embedding(source.take(positions))
    model.train(was_training)
    return Spread.of(embeddings)


def checked_spread(model: Classifier, source: ImageSource, least_distance: float, epoch: int) -> dict[str, float]:
    """The figures for the log, after this epoch.

    Raises:
        SetupError: the mean distance is below `least_distance`: the embedding has collapsed. It says what to change.
    """
    spread = spread_of(model, source)
    if spread.distance < least_distance:
        raise SetupError(
            f"epoch {epoch}: expected a mean distance of at least {least_distance:g} (metric.least_distance) between "
            f"the embeddings of training images, got {spread.distance:.2g} (variance {spread.variance:.2g}): the "
            "embedding has collapsed to one point. Raise metric.warmup_epochs, lower attack.eps or "
            "train.learning_rate, or take metric.attack=hardness or metric.mining=semi-hard, and choose another --out"
        )
    return {"embedding_distance": spread.distance, "embedding_variance": spread.variance}
