"""A few 3x3 convolutions with batch normalisation, for grey images and two cores."""

from torch import Tensor, nn

from training.models.classifier import Classifier

__all__ = ["SmallCnn"]


class SmallCnn(Classifier):
    """Stages of two convolutions, the second with stride 2, then a fully connected embedding after ReLU.

    Works for 8x8, 28x28 and 32x32. Stage i has width * 2^i channels.

    Source: the MNIST network of Mao et al. 2019 (arXiv 1909.00900), narrower and with fewer layers.
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
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
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
        features: Tensor = self.projection(self.stages(images))
        return features


def _block(inputs: int, outputs: int, *, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
