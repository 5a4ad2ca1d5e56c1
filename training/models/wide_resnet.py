"""Wide residual network with pre-activation."""

import torch.nn.functional as F
from torch import Tensor, nn

from training.models.classifier import Classifier

__all__ = ["WideResNet"]

SLOPE = 0.1


class WideResNet(Classifier):
    """WRN-depth-k: stem of 16 channels, three groups of 16k, 32k and 64k, pooled after the last BN.

    Source: Zagoruyko and Komodakis 2016 (arXiv 1605.07146); leaky ReLU 0.1 as in
    Mao et al. 2019 (arXiv 1909.00900).
    """

    def __init__(self, *, channels: int, classes: int, depth: int = 10, factor: int = 1) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"expected a depth of 6n + 4, n >= 1, got {depth}")
        self.blocks = blocks = (depth - 4) // 6  # of each group
        self.stem = _convolution(channels, 16, size=3, stride=1)
        groups: list[nn.Module] = []
        previous = 16
        for group, stride in enumerate((1, 2, 2)):
            following = 16 * factor * 2**group
            for block in range(blocks):
                groups.append(_Block(previous, following, stride=stride if block == 0 else 1))
                previous = following
        self.groups = nn.Sequential(*groups)
        self.norm = nn.BatchNorm2d(previous)
        self.head = nn.Linear(previous, classes)

    def embed(self, images: Tensor) -> Tensor:
        """Pooled features (N, 64k) of images (N, C, H, W)."""
        return self.feature_maps(images)[-1].mean(dim=(2, 3))  # of (N, 64k, h, w)

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """See Classifier; the last one after its normalisation, the others as the next group gets them."""
        maps, groups = self.stem(images), []
        for block in self.groups:
            maps = block(maps)
            groups.append(maps)
        *before, last = groups[self.blocks - 1 :: self.blocks]
        return (*before, F.leaky_relu(self.norm(last), SLOPE))


class _Block(nn.Module):
    """BN, leaky ReLU and 3x3 convolution twice, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.convolution1 = _convolution(inputs, outputs, size=3, stride=stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.convolution2 = _convolution(outputs, outputs, size=3, stride=1)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else _convolution(inputs, outputs, size=1, stride=stride)

    def forward(self, maps: Tensor) -> Tensor:
        active = F.leaky_relu(self.norm1(maps), SLOPE)
        carried = maps if self.shortcut is None else self.shortcut(active)
        residual = self.convolution2(F.leaky_relu(self.norm2(self.convolution1(active)), SLOPE))
        return carried + residual  # type: ignore[no-any-return]


def _convolution(inputs: int, outputs: int, *, size: int, stride: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, a=SLOPE, mode="fan_out", nonlinearity="leaky_relu")
    return convolution
