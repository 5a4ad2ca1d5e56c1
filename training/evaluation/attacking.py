"""Runs one attack of a suite over many 8-bit images, batch by batch."""

import zlib
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.detection.types import Bytes8
from training.attacks.rounding import from_8_bit, to_8_bit
from training.evaluation.rounding import to_8_bit_fooling
from training.evaluation.suite import SuiteEntry

__all__ = ["BATCH", "Progress", "attack_images"]

BATCH = 128

Progress = Callable[[str], None]
"""Takes a line for people."""


def attack_images(
    model: nn.Module,
    images: Bytes8,
    labels: NDArray[np.int64],
    entry: SuiteEntry,
    *,
    seed: int,
    progress: Progress,
    batch: int = BATCH,
) -> Bytes8:
    """Attacked images of 8 bits, (N, H, W, C).

    Args:
        model: in eval mode; its device is computed on.
        images: (N, H, W, C), clean.
        labels: (N,) true classes.
        entry: the attack; its random numbers do not depend on which others run.
        seed: of every random number.
        batch: images at once.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {entry.name}".encode()))
    parts = []
    for start in range(0, len(images), batch):
        progress(f"{entry.name}: {start} of {len(images)}")
        rows = slice(start, start + batch)
        parts.append(_attack_batch(model, from_8_bit(images[rows]), torch.from_numpy(labels[rows]), entry, generator))
    return np.concatenate(parts)


def _attack_batch(
    model: nn.Module, clean: Tensor, labels: Tensor, entry: SuiteEntry, generator: torch.Generator
) -> Bytes8:
    device = next(model.parameters()).device
    clean, labels = clean.to(device), labels.to(device)
    attacked = entry.attack(model, clean, labels, generator)
    if entry.eps is None:
        rounded = to_8_bit_fooling(model, attacked, clean, labels)
    else:
        rounded = to_8_bit(attacked, clean, entry.norm, entry.eps)
    return np.ascontiguousarray(rounded.cpu().numpy())
