"""Where a network looks, and how much of that is background."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.detection.types import Bools, Bytes8, Float64s
from training.attacks.rounding import from_8_bit
from training.evaluation.judging import Attacked, Subject
from training.masks import Masks, PixelMasks, SegmentMasks
from training.masks.attention import MAPS, check_maps, has_maps
from training.models import Classifier

__all__ = ["Looked", "Looking", "Shares", "looking", "looks", "maps_of", "shares_on_background"]

_BATCH = 128
_ATTACK = "pgd"
"""By name in the suite; where it was not run, the first attack on all images."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Means over images, in [0, 1]; None where no image supports the figure."""

    background: float
    """Of the pixels that are background: what a network that looks everywhere alike would have."""
    cam: float | None
    """Of the Grad-CAM map's sum that lies on the background; images whose map is 0 are left out."""
    saliency: float | None
    """The same of saliency."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Looked:
    """One image and where the network looks."""

    image: Bytes8
    """(H, W, C)."""
    background: Bools
    """(H, W)."""
    cam: Float64s
    """(H, W) of Grad-CAM."""
    saliency: Float64s
    """(H, W)."""
    attacked: Bytes8
    """(H, W, C)."""
    attacked_cam: Float64s
    """(H, W)."""
    label: str
    """That the network names."""
    attacked_label: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Looking:
    """What the page tells of where the classifier looks."""

    grid: tuple[int, int]
    """Places of Grad-CAM, before it is enlarged."""
    is_by_colour: bool
    """Whether the background is told by colour; else dark pixels are background."""
    shares: Shares
    """Over the clean images."""
    attacked_cam: float | None
    """Share of Grad-CAM on the (clean image's) background once attacked."""
    attack: str
    """Its title."""
    examples: tuple[Looked, ...]


def looking(
    model: nn.Module, subject: Subject, attacked: Sequence[Attacked], names: Sequence[str], chosen: NDArray[np.int64]
) -> Looking | None:
    """Where a classifier looks in the images of an evaluation; None where it has no maps, or nothing was attacked.

    Args:
        model: in eval mode.
        subject: the images.
        attacked: by every attack.
        names: of the classes.
        chosen: rows of the images to show.
    """
    everywhere = [one for one in attacked if one.rows is None]
    shape = subject.images.shape
    if not (everywhere and isinstance(model, Classifier) and has_maps(model, shape[3], shape[1], shape[2])):
        return None
    one = next((one for one in everywhere if one.entry.name == _ATTACK), everywhere[0])
    is_by_colour = shape[3] > 1
    masks: Masks = SegmentMasks() if is_by_colour else PixelMasks()
    background = _background(model, subject.images, masks)
    cams, after = maps_of(model, "cam", subject.images), maps_of(model, "cam", one.images)
    saliencies = maps_of(model, "saliency", subject.images)
    return Looking(
        grid=_grid(model, subject.images),
        is_by_colour=is_by_colour,
        shares=_shares(background, cams, saliencies),
        attacked_cam=_share(after, background),
        attack=one.entry.title,
        examples=tuple(
            Looked(
                image=subject.images[row],
                background=background[row],
                cam=cams[row],
                saliency=saliencies[row],
                attacked=one.images[row],
                attacked_cam=after[row],
                label=names[subject.clean.labels[row]],
                attacked_label=names[one.decisions.labels[row]],
            )
            for row in chosen
        ),
    )


def maps_of(model: Classifier, kind: str, images: Bytes8) -> Float64s:
    """Where the network looks, a key of training.masks.attention.MAPS, (N, H, W), of images (N, H, W, C)."""
    return np.concatenate([MAPS[kind](model, batch).cpu().double().numpy() for batch in _batches(model, images)])


def shares_on_background(model: Classifier, images: Bytes8, masks: Masks) -> Shares:
    """Of clean images (N, H, W, C), N >= 1.

    Raises:
        SetupError: the network has no class activation maps.
    """
    check_maps(model, images.shape[3], *images.shape[1:3])
    return _shares(_background(model, images, masks), maps_of(model, "cam", images), maps_of(model, "saliency", images))


def looks(model: Classifier, images: Bytes8, masks: Masks) -> dict[str, float | None]:
    """The same as flat figures."""
    shares = shares_on_background(model, images, masks)
    return {
        "background_share": shares.background,
        "cam_on_background": shares.cam,
        "saliency_on_background": shares.saliency,
    }


def _grid(model: Classifier, images: Bytes8) -> tuple[int, int]:
    with torch.no_grad():
        height, width = model.feature_maps(_batches(model, images[:1])[0])[-1].shape[2:]
    return height, width


def _background(model: Classifier, images: Bytes8, masks: Masks) -> Bools:
    return np.concatenate([masks(batch)[:, 0].cpu().numpy() for batch in _batches(model, images)])


def _shares(background: Bools, cams: Float64s, saliencies: Float64s) -> Shares:
    return Shares(
        background=float(background.mean()), cam=_share(cams, background), saliency=_share(saliencies, background)
    )


def _share(maps: Float64s, background: Bools) -> float | None:
    sums = maps.sum(axis=(1, 2))
    looks = sums > 0
    if not looks.any():
        return None
    return float(((maps * background).sum(axis=(1, 2))[looks] / sums[looks]).mean())


def _batches(model: Classifier, images: Bytes8) -> list[Tensor]:
    device = next(model.parameters()).device
    starts = range(0, len(images), _BATCH)
    return [from_8_bit(torch.from_numpy(images[start : start + _BATCH].copy())).to(device) for start in starts]
