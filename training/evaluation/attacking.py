"""Runs one attack of a suite over many 8-bit images, batch by batch."""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.detection.types import Bytes8
from training.attacks.rounding import from_8_bit, nearest_8_bit, to_8_bit
from training.evaluation.attack_cache import AttackCache, Made, digest
from training.evaluation.entries import SuiteEntry
from training.evaluation.progress import time_left
from training.evaluation.rounding import to_8_bit_fooling

__all__ = ["BATCH", "AttackRun", "Progress", "attack_images"]

BATCH = 128

_KEEP_EVERY_S = 30.0
"""Of work may be lost; each keeping writes all images that there are."""

Progress = Callable[[str], None]
"""Takes a line for people."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackRun:
    """What one attack made of many images."""

    images: Bytes8
    """(N, H, W, C)."""
    spared: float
    """Seconds that earlier calls had spent on it."""


def attack_images(
    model: nn.Module,
    images: Bytes8,
    labels: NDArray[np.int64],
    entry: SuiteEntry,
    *,
    seed: int,
    progress: Progress,
    batch: int = BATCH,
    cache: AttackCache | None = None,
) -> AttackRun:
    """Attacked images of 8 bits.

    Args:
        model: in eval mode; its device is computed on.
        images: (N, H, W, C), clean.
        labels: (N,) true classes.
        entry: the attack; its random numbers do not depend on which others run.
        seed: of every random number.
        batch: images at once.
        cache: where an earlier call left off it goes on, to the images of an uninterrupted one.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {entry.name}".encode()))
    words = f"{entry.name} {entry.norm} {entry.eps} {entry.attack!r} seed {seed} batch {batch} on {device.type}"
    key = digest(model, images, labels, words) if cache else ""
    parts, spared = [], 0.0
    if cache and (made := cache.find(entry.name, key)):
        generator.set_state(torch.from_numpy(made.generator))
        parts, spared = [made.images], made.seconds
    done = first = sum(map(len, parts))
    began = kept = time.monotonic()
    while done < len(images):
        left = time_left(time.monotonic() - began, done=done - first, left=len(images) - done)
        progress(f"{entry.name}: {done} of {len(images)}{left}")
        rows = slice(done, done + batch)
        parts.append(_attack_batch(model, from_8_bit(images[rows]), torch.from_numpy(labels[rows]), entry, generator))
        done, now = done + len(parts[-1]), time.monotonic()
        if cache and (done == len(images) or now - kept > _KEEP_EVERY_S):
            kept = now
            state = generator.get_state().numpy()
            cache.keep(
                entry.name, key, Made(images=np.concatenate(parts), generator=state, seconds=spared + now - began)
            )
    return AttackRun(images=np.concatenate(parts), spared=spared)


def _attack_batch(
    model: nn.Module, clean: Tensor, labels: Tensor, entry: SuiteEntry, generator: torch.Generator
) -> Bytes8:
    device = next(model.parameters()).device
    clean, labels = clean.to(device), labels.to(device)
    attacked = entry.attack(model, clean, labels, generator)
    if entry.norm == "patch" or entry.norm == "spatial":
        rounded = nearest_8_bit(attacked)
    elif entry.eps is None:
        rounded = to_8_bit_fooling(model, attacked, clean, labels)
    else:
        rounded = to_8_bit(attacked, clean, entry.norm, entry.eps)
    return np.ascontiguousarray(rounded.cpu().numpy())
