"""Residual network of 18 layers for small images."""

import torch.nn.functional as F
from torch import Tensor, nn

from training.models.classifier import Classifier

__all__ = ["ResNet18"]

BLOCKS = 2  # basic blocks a stage


class ResNet18(Classifier):
    """A 3x3 stem without pooling, then four stages of two basic blocks with width, 2, 4 and 8 times width channels.

    The last three stages halve height and width. 11,173,962 parameters at width 64, 3 channels and 10 classes.

    Source: He et al. 2016 (arXiv 1512.03385), whose ImageNet stem (7x7, stride 2, pooling) gives way to the 3x3 stem of
    their CIFAR-10 networks; shortcuts that change the shape are 1x1 convolutions (their option B).
    """

    def __init__(self, *, channels: int, classes: int, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(channels, width, size=3, stride=1), nn.ReLU())
        blocks: list[nn.Module] = []
        previous = width
        for stage, stride in enumerate((1, 2, 2, 2)):
            following = width * 2**stage
            for block in range(BLOCKS):
                blocks.append(_Block(previous, following, stride=stride if block == 0 else 1))
                previous = following
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(previous, classes)

    def embed(self, images: Tensor) -> Tensor:
        """Non-negative pooled features (N, 8 width) of images (N, C, H, W)."""
        return self.feature_maps(images)[-1].mean(dim=(2, 3))  # of (N, 8 width, h, w)

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """See Classifier."""
        maps, stages = self.stem(images), []
        for block in self.blocks:
            maps = block(maps)
            stages.append(maps)
        return tuple(stages[BLOCKS - 1 :: BLOCKS])


class _Block(nn.Module):
    """Two 3x3 convolutions with batch normalisation beside a shortcut, ReLU after the sum."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_convolution(inputs, outputs, size=3, stride=stride),
            nn.ReLU(),
            *_convolution(outputs, outputs, size=3, stride=1),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Sequential() if same else nn.Sequential(*_convolution(inputs, outputs, size=1, stride=stride))
        )

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.shortcut(maps) + self.residual(maps))


def _convolution(inputs: int, outputs: int, *, size: int, stride: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution, nn.BatchNorm2d(outputs)
