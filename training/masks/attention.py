"""Where a network looks: Grad-CAM and saliency, and the masks that follow from them.

Both ask for the logit of the class that the network itself names, so that they are functions of the image alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from service.errors import SetupError
from training.attacks.protocol import undisturbed
from training.models import Classifier
from training.network_digest import network_digest

__all__ = ["MAPS", "AttentionMasks", "Threshold", "beyond", "check_maps", "grad_cam", "has_maps", "saliency"]

Threshold = Literal["median", "deviation"]


def grad_cam(network: Classifier, images: Tensor) -> Tensor:
    """max(0, sum_k a_k A_k) of the last feature maps A, a_k the mean gradient by map k, enlarged to the images' size.

    Args:
        network: left as found.
        images: (N, C, H, W) in [0, 1].

    Returns:
        (N, H, W), at least 0.

    Source: Selvaraju et al. 2017 (arXiv 1610.02391).
    """
    with undisturbed(network):
        maps = network.feature_maps(images.detach())[-1].detach().requires_grad_(True)  # (N, K, h, w)
        named = network.head(network.embed_maps(maps)).float().amax(dim=1)
        (gradients,) = torch.autograd.grad(named.sum(), maps)
    weights = gradients.float().mean(dim=(2, 3), keepdim=True)
    small = F.relu((weights * maps.detach().float()).sum(dim=1, keepdim=True))
    return F.interpolate(small, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def saliency(network: Classifier, images: Tensor) -> Tensor:
    """|gradient of the logit by the pixel|, the largest of its channels, averaged over 3 x 3 pixels.

    Args:
        network: left as found.
        images: (N, C, H, W) in [0, 1].

    Returns:
        (N, H, W), at least 0.

    Source: Simonyan et al. 2014 (arXiv 1312.6034); the average is ours.
    """
    with undisturbed(network):
        seen = images.detach().requires_grad_(True)
        (gradients,) = torch.autograd.grad(network(seen).float().amax(dim=1).sum(), seen)
    largest = gradients.float().abs().amax(dim=1, keepdim=True)
    return F.avg_pool2d(largest, 3, stride=1, padding=1, count_include_pad=False)[:, 0]


MAPS: Mapping[str, Callable[[Classifier, Tensor], Tensor]] = {"cam": grad_cam, "saliency": saliency}


def beyond(maps: Tensor, threshold: Threshold) -> Tensor:
    """Where maps (N, H, W) exceed their own image's median, or mean + 1 standard deviation, (N, H, W)."""
    flat = maps.flatten(1)
    limits = flat.median(dim=1).values
    if threshold == "deviation":
        limits = flat.mean(dim=1) + flat.std(dim=1, correction=0)
    return maps > limits[:, None, None]


@dataclass(frozen=True, kw_only=True)
class AttentionMasks:
    """Background is where a map of the network does not exceed the threshold; of a map that is 0 everywhere, all."""

    kind: Literal["cam", "saliency"]
    owner: Classifier
    threshold: Threshold = "median"
    is_stored = False

    def __call__(self, images: Tensor) -> Tensor:
        """See Masks."""
        return ~beyond(MAPS[self.kind](self.owner, images), self.threshold)[:, None]

    @property
    def network(self) -> str:
        """Digest of the network as it is now."""
        return network_digest(self.owner)

    def __repr__(self) -> str:
        return f"AttentionMasks({self.kind}, {self.threshold}, network {self.network})"


def has_maps(network: Classifier, channels: int, height: int, width: int) -> bool:
    """Whether the embedding follows from the last feature maps by `embed_maps`, so that Grad-CAM is of its answers."""
    device = next(network.parameters()).device
    images = torch.linspace(0, 1, channels * height * width, device=device).view(1, channels, height, width)
    with undisturbed(network), torch.no_grad():
        mapped = network.embed_maps(network.feature_maps(images)[-1])
        embedded = network.embed(images)
    return mapped.shape == embedded.shape and torch.allclose(mapped, embedded, rtol=1e-3, atol=1e-4)


def check_maps(network: Classifier, channels: int, height: int, width: int) -> None:
    """Refuses a network without class activation maps.

    Raises:
        SetupError: has_maps() says no.
    """
    if not has_maps(network, channels, height, width):
        raise SetupError(
            f"localized.mask: expected a network whose embedding follows from its last feature maps, got "
            f"{type(network).__name__}, which has no class activation maps; take saliency"
        )
