"""Feature Squeezing (Xu et al. 2018): how far the classifier's answer moves when the image is made simpler."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploy.peers.peer import Material, Peer, TorchScorer

__all__ = ["SQUEEZING", "FeatureSqueezing", "fewer_bits", "median_2x2"]

_BITS_GREY, _BITS_COLOUR = 1, 5


class FeatureSqueezing(TorchScorer):
    """Largest L1 distance between the softmax of the image and that of its squeezed versions."""

    def __init__(self, model: nn.Module, bits: int) -> None:
        super().__init__()
        self.model = model
        self.bits = bits

    def forward(self, images: Tensor) -> Tensor:
        """See TorchScorer."""
        answer: Tensor = self.model(images).softmax(dim=1)
        squeezed = (fewer_bits(images, self.bits), median_2x2(images))
        moved = [(self.model(one).softmax(dim=1) - answer).abs().sum(dim=1) for one in squeezed]
        farthest: Tensor = torch.stack(moved, dim=1).amax(dim=1)
        return farthest


def fewer_bits(images: Tensor, bits: int) -> Tensor:
    """Values in [0, 1] at 2^bits levels; the gradient passes as if nothing were rounded (BPDA)."""
    levels = 2**bits - 1
    change: Tensor = (images * levels).round() / levels - images
    return images + change.detach()


def median_2x2(images: Tensor) -> Tensor:
    """Each value becomes the third smallest of itself, its neighbours above and left, and the one between these.

    That is scipy.ndimage.median_filter with size 2, which the authors use: of four values it takes the upper median.
    """
    padded = F.pad(images, (1, 0, 1, 0), mode="replicate")
    height, width = images.shape[2:]
    views = [padded[:, :, top : top + height, left : left + width] for top in (0, 1) for left in (0, 1)]
    return torch.stack(views).sort(dim=0).values[2]


def _fit(material: Material) -> TorchScorer:
    bits = _BITS_GREY if material.calm.shape[1] == 1 else _BITS_COLOUR
    return FeatureSqueezing(material.model, bits)


SQUEEZING = Peer(
    name="feature_squeezing",
    title="Feature Squeezing",
    source="Xu et al. 2018 (arXiv 1704.01155): 1 bit (grey) or 5 bits (colour) and a 2 x 2 median, as in their joint "
    "detectors without non-local means, which no library here has",
    fit_data="nothing",
    fit=_fit,
)
