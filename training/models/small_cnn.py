"""A few 3x3 convolutions with batch normalisation, for grey images and two cores."""

import torch
from torch import Tensor, nn

from training.models.classifier import Classifier

__all__ = ["SmallCnn", "SoftThreshold"]


class SmallCnn(Classifier):
    """Stages of two convolutions, the second with stride 2, then a fully connected embedding after ReLU.

    Works for 8x8, 28x28 and 32x32. Stage i has width * 2^i channels.

    Source: the MNIST network of Mao et al. 2019 (arXiv 1909.00900), narrower and with fewer layers. The soft
    threshold is ours; Madry et al. 2018 (arXiv 1706.06083) found that robust networks learn filters that threshold.
    """

    def __init__(
        self,
        *,
        channels: int,
        height: int,
        width: int,
        classes: int,
        first_channels: int = 16,
        stages: int = 2,
        embedding_dim: int = 128,
        stem_stride: int = 1,
        soft_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [SoftThreshold(soft_threshold)] if soft_threshold else []
        previous = channels
        for stage in range(stages):
            following = first_channels * 2**stage
            layers += _block(previous, following, stride=stem_stride if stage == 0 else 1)
            layers += _block(following, following, stride=2)
            previous = following
        shrink = stem_stride * 2**stages  # each stride-2 convolution rounds up
        cells = -(-height // shrink) * -(-width // shrink)
        self.stages = nn.Sequential(*layers)
        self.projection = nn.Sequential(nn.Flatten(), nn.Linear(previous * cells, embedding_dim), nn.ReLU())
        self.head = nn.Linear(embedding_dim, classes)

    def embed(self, images: Tensor) -> Tensor:
        """Non-negative features (N, embedding_dim) of images (N, C, H, W)."""
        return self.embed_maps(self.stages(images))

    def embed_maps(self, maps: Tensor) -> Tensor:
        """See Classifier."""
        features: Tensor = self.projection(maps)
        return features

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """See Classifier; after the ReLU that closes each stage."""
        maps, active = images, []
        for layer in self.stages:
            maps = layer(maps)
            if isinstance(layer, nn.ReLU):
                active.append(maps)
        return tuple(active[1::2])  # a stage has two convolutions


class SoftThreshold(nn.Module):
    """sigmoid(steepness (x - 0.5)) of each pixel value x.

    Its gradient is never 0, so that attacks by gradients find their way through it. It is not learned: at a learning
    rate that suits the convolutions the level left the range of pixels within 400 steps.
    """

    def __init__(self, steepness: float) -> None:
        super().__init__()
        self.steepness = steepness

    def forward(self, images: Tensor) -> Tensor:
        """Values in (0, 1) of the images' shape."""
        return torch.sigmoid(self.steepness * (images - 0.5))


def _block(inputs: int, outputs: int, *, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
