"""What is background in an image. A new kind of mask: one file, one line in build_masks, one row in its test table."""

from pathlib import Path

import torch

from service.errors import SetupError
from training.checkpoint import load_run
from training.data.types import DataSet
from training.masks.attention import AttentionMasks, check_maps, grad_cam, saliency
from training.masks.plain import BoxMasks, PixelMasks
from training.masks.protocol import Masks
from training.masks.segment import SegmentMasks
from training.masks.stored import StoredMasks, read_masks
from training.methods_localized import LocalizedConfig
from training.models import Classifier

__all__ = [
    "AttentionMasks",
    "BoxMasks",
    "Masks",
    "PixelMasks",
    "SegmentMasks",
    "StoredMasks",
    "build_masks",
    "grad_cam",
    "read_masks",
    "saliency",
]


def build_masks(
    config: LocalizedConfig, own: Classifier, shape: tuple[int, int, int], dataset: DataSet | None
) -> Masks:
    """The masks of a recipe's section.

    Args:
        config: kind and settings; the region does not matter.
        own: the network that is trained or measured, whose maps are taken where the section names no run.
        shape: H, W, C of the images.
        dataset: that the masks of a file are of; needed for kind `file` alone.

    Raises:
        SetupError: the file or the run of the section is missing, or does not suit the images.
    """
    if config.mask == "pixels":
        return PixelMasks(level=config.pixel_level, dilate=config.dilate)
    if config.mask == "box":
        return BoxMasks(share=config.box_share)
    if config.mask == "segment":
        return SegmentMasks(share=config.box_share)
    if config.mask == "file":
        if dataset is None:
            raise SetupError(f"localized.file: expected the data set that {config.file} is of, got none")
        return read_masks(Path(config.file), dataset)
    owner = _of_run(config.run, shape, next(own.parameters()).device) if config.run else own
    if config.mask == "cam":
        height, width, channels = shape
        check_maps(owner, channels, height, width)
    return AttentionMasks(kind=config.mask, owner=owner, threshold=config.threshold)


def _of_run(path: str, shape: tuple[int, int, int], device: torch.device) -> Classifier:
    try:
        run = load_run(Path(path), device=device)
    except SetupError as error:
        raise SetupError(f"localized.run: {error}") from error
    if run.input_shape != tuple(shape):
        raise SetupError(f"localized.run: expected a network of images {tuple(shape)}, got {path} of {run.input_shape}")
    return run.model
