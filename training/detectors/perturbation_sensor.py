"""A small network that tells clean images from images under perturbations that no attack made."""

import math
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.detection.types import FlagReason
from service.errors import SetupError
from training.detectors.detector import CleanViews
from training.detectors.learned import Learned, learn
from training.detectors.residual import KERNELS
from training.forging import benign, forge

__all__ = ["PerturbationSensor", "SensorNetwork", "told_apart"]

WIDTH = 32
EPOCHS = 20.0
SMALLEST = 4
"""Pixels of the shorter side."""
CUT = 3.0
"""Residuals beyond so many eps tell of edges, not of perturbations."""


class SensorNetwork(nn.Module):
    """Residuals of neighbouring pixels, cut off softly, through four convolutions, to one number.

    The residuals are fixed, as in steganalysis: what an image shows is gone before anything is learned.
    """

    kernels: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        """Takes the images' channels, and in which unit residuals are cut off."""
        super().__init__()
        self.unit = eps
        self.register_buffer("kernels", torch.tensor(KERNELS)[:, None])  # (F, 1, 3, 3)
        widths = (len(KERNELS) * channels, WIDTH, 2 * WIDTH, 2 * WIDTH, 2 * WIDTH)
        strides = (1, 2, 1, 2)
        layers: list[nn.Module] = []
        for before, after, stride in zip(widths[:-1], widths[1:], strides, strict=True):
            layers += [
                nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(2 * widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to (N,): log odds of a perturbation."""
        count, _, height, width = images.shape
        residuals = F.conv2d(images.flatten(0, 1)[:, None], self.kernels, padding=1) / self.unit
        cut = CUT * torch.tanh(residuals / CUT)
        features = self.layers(cut.reshape(count, -1, height, width))
        odds: Tensor = self.head(torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1))
        return odds[:, 0]


class PerturbationSensor(Learned):
    """Log odds of a perturbation, as a network sees it that was shown forged ones only.

    It learns from clean images, from the same under harmless changes (noise without aim up to eps, JPEG, blur, light,
    resizing, turns), and from forged perturbations: coloured noise and gradients of random untrained networks, in many
    norms and sizes (training.forging). It has never seen an attack nor a gradient of a trained network.

    Source: a binary detector of perturbations, as in Metzen et al. 2017 (arXiv 1702.04267), who train theirs on
        attacks; residuals cut off before learning, as in steganalysis (Ye et al. 2017). Forgeries are ours.
    """

    kind: ClassVar[str] = "perturbation_sensor"
    meaning: ClassVar[str] = "fine structure looks more like that of a perturbed image"
    reason: ClassVar[FlagReason] = FlagReason.OUT_OF_DISTRIBUTION

    def __init__(self, network: SensorNetwork) -> None:
        """Takes the network."""
        super().__init__()
        self.network = network

    @classmethod
    def untrained(cls, clean: CleanViews) -> Self:
        """See Learned."""
        _, channels, height, width = clean.images.shape
        if min(height, width) < SMALLEST:
            raise SetupError(
                f"perturbation_sensor: expected images of {SMALLEST} x {SMALLEST} pixels or more, got "
                f"{height} x {width}; leave it out of export.detectors"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(clean.lessons.seed)
            network = SensorNetwork(channels, clean.lessons.eps)
        return cls(network)

    def train_on(self, clean: CleanViews) -> None:
        """See Learned; cross-entropy in which clean and forged images weigh the same."""
        lessons = clean.lessons

        def loss(network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            quarter = math.ceil(len(images) / 4)
            forged = [forge(part, generator, eps=lessons.eps) for part in torch.split(images[: 2 * quarter], quarter)]
            return told_apart(network, torch.cat(forged), images, generator, eps=lessons.eps)

        learn(self.network, lessons, loss, epochs=EPOCHS, name=self.kind)

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        odds: Tensor = self.network(images)
        return odds


def told_apart(
    network: nn.Module, perturbed: Tensor, images: Tensor, generator: torch.Generator, *, eps: float
) -> Tensor:
    """Cross-entropy in which perturbed images weigh as much as clean ones, two thirds of these under harmless changes.

    Args:
        network: images to log odds of a perturbation.
        perturbed: (M, C, H, W).
        images: (N, C, H, W), clean.
        generator: of the harmless changes.
        eps: see training.forging.benign.
    """
    untouched, *others = torch.split(images, math.ceil(len(images) / 3))
    harmless = [benign(part, generator, eps=eps) for part in others]
    odds = network(torch.cat([perturbed, untouched, *harmless])).float()
    return F.softplus(-odds[: len(perturbed)]).mean() + F.softplus(odds[len(perturbed) :]).mean()
