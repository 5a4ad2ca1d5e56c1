"""Whether another classifier, trained without attacks, would give the same answer."""

import math
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.detection.types import FlagReason
from training.detectors.classes import at_least_two
from training.detectors.detector import CleanViews
from training.detectors.distances import is_predicted
from training.detectors.learned import Learned, learn
from training.forging import benign
from training.models.small_cnn import SmallCnn

__all__ = ["Companion"]

WIDTH = 32
STAGES = 3
SMALLEST_CELLS = 4
"""Pixels of the shorter side that the last stage leaves, at least."""
EMBEDDING = 128
EPOCHS = 16.0


class Companion(Learned):
    """Log odds that a second network gives against the class that the classifier predicts.

    The second network is trained on the same images, in their own state and under harmless changes, never under
    attack. So it looks at fine detail that the robust classifier has learned not to see, and an attack on the one
    hardly moves the other. An attacker who knows of it leads both astray: alone it is the easier one.

    Source: disagreement of differently trained networks as a sign of attack, as in Monteiro et al. 2019 (arXiv
        1905.00180), there two networks and a classifier that was fitted on attacks.
    """

    kind: ClassVar[str] = "companion"
    meaning: ClassVar[str] = "a second classifier, trained apart, agrees less"
    reason: ClassVar[FlagReason] = FlagReason.LOW_CONFIDENCE

    classes: Tensor

    def __init__(self, network: nn.Module, classes: int) -> None:
        """Takes the second network, images (N, C, H, W) to logits (N, L), and L, 2 or more."""
        super().__init__()
        self.network = network
        self.register_buffer("classes", torch.arange(classes))

    @classmethod
    def untrained(cls, clean: CleanViews) -> Self:
        """See Learned."""
        _, channels, height, width = clean.images.shape
        stages = 1
        while stages < STAGES and min(height, width) / 2 ** (stages + 1) >= SMALLEST_CELLS:
            stages += 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(clean.lessons.seed)
            network = SmallCnn(
                channels=channels,
                height=height,
                width=width,
                classes=at_least_two(clean.classes),
                first_channels=WIDTH,
                stages=stages,
                embedding_dim=EMBEDDING,
                stem_stride=2 if min(height, width) >= math.prod((SMALLEST_CELLS, 2**STAGES)) else 1,
            )
        return cls(network.prepared(), clean.classes)

    def train_on(self, clean: CleanViews) -> None:
        """See Learned; cross-entropy, half of every batch under harmless changes."""
        lessons = clean.lessons

        def loss(network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            half = len(images) // 2
            changed = benign(images[half:], generator, eps=lessons.eps)
            logits: Tensor = network(torch.cat([images[:half], changed]))
            return F.cross_entropy(logits.float(), labels)

        learn(self.network, lessons, loss, epochs=EPOCHS, name=self.kind)

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        answers = self.network(images).float()
        mine = is_predicted(logits, self.classes)  # (N, L), one true a row
        others = torch.logsumexp(answers.masked_fill(mine, -torch.inf), dim=1)
        odds: Tensor = others - answers.masked_fill(~mine, -torch.inf).amax(dim=1)
        return odds
