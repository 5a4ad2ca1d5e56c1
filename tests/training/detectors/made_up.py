"""Clean views of a made-up classifier, quick to make."""

import torch
from torch import Tensor

from training.attacks.rounding import nearest_8_bit
from training.detectors import CleanViews, Lessons
from training.models import Classifier
from training.models.small_cnn import SmallCnn

CLASSES, DIMENSIONS, SIDE = 4, 12, 8


def views(count: int = 240, *, seed: int = 0, channels: int = 1, side: int = SIDE) -> CleanViews:
    """One cone of the sphere a class, right four times in five; smooth images with a little noise.

    Logits and embedding know nothing of the images, nor of the classifier.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    centres = torch.eye(CLASSES, DIMENSIONS)
    noise = 0.2 * torch.randn(count, DIMENSIONS, generator=generator)
    logits = torch.randn(count, CLASSES, generator=generator) + 3 * torch.nn.functional.one_hot(labels, CLASSES)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
    grain = 0.02 * torch.randn(count, channels, side, side, generator=generator)
    return CleanViews(
        images=(smooth + grain).clamp(0, 1),
        logits=logits,
        embedding=torch.nn.functional.normalize(centres[labels] + noise, dim=1),
        labels=labels,
        classifier=classifier(channels=channels, side=side),
        lessons=lessons((smooth + grain).clamp(0, 1), labels),
    )


def lessons(images: Tensor, labels: Tensor) -> Lessons:
    """A few steps of training only."""
    return Lessons(images=nearest_8_bit(images).numpy(), labels=labels.numpy(), eps=16 / 255, seed=0, effort=0.05)


def classifier(*, channels: int = 1, side: int = SIDE) -> Classifier:
    """Untrained, in eval mode, always the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SmallCnn(
            channels=channels, height=side, width=side, classes=CLASSES, first_channels=4, embedding_dim=DIMENSIONS
        )
    return network.eval()
