"""The four networks that min-max attacks are tried on together, for small images of any channels.

Source: Wang et al. 2021 (NeurIPS), their networks A to D on MNIST: a perceptron, an All-CNN (Springenberg et al. 2015,
arXiv 1412.6806), LeNet (LeCun et al. 1998) and two convolutions. B ends in a 1x1 convolution of stride 2 and a mean,
both linear: the mean of every second position comes first here, which is the same and makes its last layer a head.
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from service.errors import SetupError
from training.models.classifier import Classifier

__all__ = ["AllCnn", "LeNet", "Perceptron", "TwoConvolutions"]

_LEAST_SIDE = 16
"""Of LeNet's images: behind both convolutions and pools one position is left."""


class Perceptron(Classifier):
    """A: fully connected layers of 128, 128 and 64."""

    def __init__(self, *, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        sizes = (channels * height * width, 128, 128, 64)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], classes)

    def embed(self, images: Tensor) -> Tensor:
        """Non-negative features (N, 64) of images (N, C, H, W)."""
        return self.feature_maps(images)[-1].flatten(1)

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """See Classifier; maps of one position."""
        features, maps = images.flatten(1), []
        for layer in self.layers:
            features = F.relu(layer(features))
            maps.append(features[:, :, None, None])
        return tuple(maps)


class AllCnn(Classifier):
    """B: convolutions alone, 3x3 of 32, 64, 128 (stride 2), 128, 128, 128 (stride 2), 128; 1x1 of 128 and classes."""

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__()
        plan = ((32, 3, 1), (64, 3, 1), (128, 3, 2), (128, 3, 1), (128, 3, 1), (128, 3, 2), (128, 3, 1), (128, 1, 1))
        layers, previous = [], channels
        for following, size, stride in plan:
            layers.append(nn.Conv2d(previous, following, size, stride=stride, padding=size // 2))
            previous = following
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(previous, classes)

    def embed(self, images: Tensor) -> Tensor:
        """Non-negative features (N, 128) of images (N, C, H, W)."""
        return self.feature_maps(images)[-1][:, :, ::2, ::2].mean(dim=(2, 3))

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """See Classifier; of each size the last."""
        maps = images
        found = []
        for number, layer in enumerate(self.layers):
            maps = F.relu(layer(maps))
            if number in (1, 4, 7):
                found.append(maps)
        return tuple(found)


class LeNet(Classifier):
    """C: 5x5 convolutions of 6 and 16 without padding, each with a max-pool of 2, then 120 and 84."""

    def __init__(self, *, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        if min(height, width) < _LEAST_SIDE:
            raise SetupError(f"lenet: expected images of {_LEAST_SIDE} x {_LEAST_SIDE} or more, got {height} x {width}")
        self.convolutions = nn.ModuleList([nn.Conv2d(channels, 6, 5), nn.Conv2d(6, 16, 5)])
        cells = _after_both(height) * _after_both(width)
        self.projection = _projection(16 * cells, 120, 84)
        self.head = nn.Linear(84, classes)

    def embed(self, images: Tensor) -> Tensor:
        """Non-negative features (N, 84) of images (N, C, H, W)."""
        features: Tensor = self.projection(self.feature_maps(images)[-1])
        return features

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """See Classifier; after each max-pool."""
        return _pooled(self.convolutions, images)


class TwoConvolutions(Classifier):
    """D: 3x3 convolutions of 32 and 64, each with a max-pool of 2, then 128."""

    def __init__(self, *, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(channels, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)])
        self.projection = _projection(64 * (height // 4) * (width // 4), 128)
        self.head = nn.Linear(128, classes)

    def embed(self, images: Tensor) -> Tensor:
        """Non-negative features (N, 128) of images (N, C, H, W)."""
        features: Tensor = self.projection(self.feature_maps(images)[-1])
        return features

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """See Classifier; after each max-pool."""
        return _pooled(self.convolutions, images)


def _after_both(side: int) -> int:
    """A side of LeNet's maps behind both convolutions and pools."""
    return ((side - 4) // 2 - 4) // 2


def _projection(inputs: int, *sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for size in sizes:
        layers += [nn.Linear(inputs, size), nn.ReLU()]
        inputs = size
    return nn.Sequential(*layers)


def _pooled(convolutions: nn.ModuleList, images: Tensor) -> tuple[Tensor, ...]:
    maps, found = images, []
    for convolution in convolutions:
        maps = F.max_pool2d(F.relu(convolution(maps)), 2)
        found.append(maps)
    return tuple(found)
