"""How much of where a network looks is background."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.detection.types import Bytes8, Float64s
from training.attacks.rounding import from_8_bit
from training.masks import Masks
from training.masks.attention import MAPS, check_maps
from training.models import Classifier

__all__ = ["Shares", "looks", "maps_of", "shares_on_background"]

_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Means over images, in [0, 1]; None where no image supports the figure."""

    background: float
    """Of the pixels that are background: what a network that looks everywhere alike would have."""
    cam: float | None
    """Of the Grad-CAM map's sum that lies on the background; images whose map is 0 are left out."""
    saliency: float | None
    """The same of saliency."""


def maps_of(model: Classifier, kind: str, images: Bytes8) -> Float64s:
    """Where the network looks, a key of training.masks.attention.MAPS, (N, H, W), of images (N, H, W, C)."""
    return np.concatenate([MAPS[kind](model, batch).cpu().double().numpy() for batch in _batches(model, images)])


def shares_on_background(model: Classifier, images: Bytes8, masks: Masks) -> Shares:
    """Of clean images (N, H, W, C), N >= 1.

    Raises:
        SetupError: the network has no class activation maps.
    """
    check_maps(model, images.shape[3], *images.shape[1:3])
    background = np.concatenate([masks(batch)[:, 0].cpu().numpy() for batch in _batches(model, images)])
    return Shares(
        background=float(background.mean()),
        cam=_share(maps_of(model, "cam", images), background),
        saliency=_share(maps_of(model, "saliency", images), background),
    )


def looks(model: Classifier, images: Bytes8, masks: Masks) -> dict[str, float | None]:
    """The same as flat figures."""
    shares = shares_on_background(model, images, masks)
    return {
        "background_share": shares.background,
        "cam_on_background": shares.cam,
        "saliency_on_background": shares.saliency,
    }


def _share(maps: Float64s, background: np.ndarray) -> float | None:
    sums = maps.sum(axis=(1, 2))
    looks = sums > 0
    if not looks.any():
        return None
    return float(((maps * background).sum(axis=(1, 2))[looks] / sums[looks]).mean())


def _batches(model: Classifier, images: Bytes8) -> list[Tensor]:
    device = next(model.parameters()).device
    starts = range(0, len(images), _BATCH)
    return [from_8_bit(torch.from_numpy(images[start : start + _BATCH].copy())).to(device) for start in starts]
