"""What every classifier offers: an embedding and a linear head."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["Classifier", "unit_length"]


def unit_length(embeddings: Tensor) -> Tensor:
    """Each row divided by sqrt(sum(h^2 + 1e-20)), so that h = 0 gives 0 and no NaN.

    Args:
        embeddings: (N, D).

    Source: Mao et al. 2019 (arXiv 1909.00900).
    """
    return embeddings / (embeddings.square() + 1e-20).sum(dim=1, keepdim=True).sqrt()


class Classifier(nn.Module, ABC):
    """Images to logits through an embedding; a subclass sets `head` and writes `embed`."""

    head: nn.Linear

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """The features h that the head reads, not normalised.

        Args:
            images: (N, C, H, W) in [0, 1].

        Returns:
            (N, D).
        """

    @abstractmethod
    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps (N, C_i, H_i, W_i) that each stage gives, from the first to the last."""

    def settle(self) -> None:
        """Brings up to date what the network keeps of its weights, such as operator norms.

        Called at the end of each epoch, before the network is measured. Most keep nothing.
        """

    def epoch_figures(self, images: Tensor) -> Mapping[str, float]:
        """More figures for an epoch's line in the log, from clean images (N, C, H, W); none for most.

        Raises:
            SetupError: training that goes on would be in vain; says what to change.
        """
        return {}

    def embed_maps(self, maps: Tensor) -> Tensor:
        """What `embed` makes of the last of `feature_maps`, (N, D); the mean over positions."""
        return maps.mean(dim=(2, 3))

    def embedding(self, images: Tensor) -> Tensor:
        """The embedding of unit L2 length, (N, D), as the bundle's graph gives it."""
        return unit_length(self.embed(images).float())

    def views(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, classes) and embedding (N, D) of unit L2 length, from one pass."""
        features = self.embed(images)
        return self.head(features), unit_length(features.float())

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.head(self.embed(images))
        return logits

    def prepared(self) -> "Classifier":
        """Itself, with weights laid out for channels-last convolutions."""
        return self.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
