"""Runs one attack of a suite over many 8-bit images, batch by batch, in one process or in several."""

import functools
import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.detection.types import Bytes8
from service.errors import SetupError
from training.attacks.rounding import from_8_bit, nearest_8_bit, to_8_bit
from training.evaluation.attack_cache import AttackCache, Made, digest
from training.evaluation.entries import SuiteEntry
from training.evaluation.progress import time_left
from training.evaluation.rounding import to_8_bit_fooling
from training.processes import ALONE, Processes

__all__ = ["BATCH", "PATIENCE", "AttackRun", "Progress", "attack_images"]

BATCH = 128

PATIENCE = timedelta(days=7)
"""That processes wait for each other's share of an attack: one image can take minutes. They notice one that is gone."""

_KEEP_EVERY_S = 30.0
"""Of a process's work may be lost."""

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
    processes: Processes = ALONE,
) -> AttackRun:
    """Attacked images of 8 bits: the same for any number of processes, on one kind of device and number of threads.

    Args:
        model: in eval mode; its device is computed on.
        images: (N, H, W, C), clean.
        labels: (N,) true classes.
        entry: the attack; its random numbers do not depend on which others run.
        seed: of every random number.
        progress: takes a line for people.
        batch: images at once.
        cache: where earlier calls left off it goes on, to the images of an uninterrupted one.
        processes: all of them call this; each makes its share of the batches, and all get every image.

    Raises:
        SetupError: the processes would not attack the same images of the same network.
    """
    job = _Job(model=model, images=images, labels=labels, entry=entry, seed=seed, batch=batch)
    key = job.key() if cache or processes.are_several else ""
    _check_same(entry, processes.gathered(lambda: key))
    kept = processes.decided(lambda: cache.find(entry.name, key) if cache else Made())
    missing = [number for number in range(math.ceil(len(images) / batch)) if number not in kept.batches]
    own = missing[processes.shard.rank :: processes.shard.world]
    save = functools.partial(cache.add, entry.name, key) if cache else None
    shares = processes.gathered(lambda: _share(job, own, kept, processes.shard.world, progress, save))
    made = functools.reduce(Made.and_also, shares, kept)
    if cache and missing and processes.is_first:
        cache.complete(entry.name, key, made)
    return AttackRun(
        images=np.concatenate([made.batches[number] for number in sorted(made.batches)]), spared=kept.seconds
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """An attack and the images that it is asked for, in batches."""

    model: nn.Module
    images: Bytes8
    labels: NDArray[np.int64]
    entry: SuiteEntry
    seed: int
    batch: int

    def key(self) -> str:
        """Of all that the attacked images depend on."""
        entry, device = self.entry, next(self.model.parameters()).device
        words = (
            f"{entry.name} {entry.norm} {entry.eps} {entry.attack!r} seed {self.seed} batch {self.batch} "
            f"on {device.type}"
        )
        return digest(self.model, self.images, self.labels, words)

    def size(self, number: int) -> int:
        """Images of this batch."""
        return min(self.batch, len(self.images) - number * self.batch)

    def attacked(self, number: int) -> Bytes8:
        """This batch; its random numbers are its own, so that it is the same whichever were made before, and where."""
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {self.entry.name} {number}".encode()))
        rows = slice(number * self.batch, (number + 1) * self.batch)
        clean, labels = from_8_bit(self.images[rows]), torch.from_numpy(self.labels[rows])
        return _attack_batch(self.model, clean, labels, self.entry, generator)


def _share(
    job: _Job,
    numbers: Sequence[int],
    kept: Made,
    world: int,
    progress: Progress,
    save: Callable[[Made], None] | None,
) -> Made:
    """Makes these batches, and tells and saves on the way how far it is."""
    before, here = (sum(map(job.size, some)) for some in (kept.batches, numbers))
    where = f" of the first of {world} processes" if world > 1 else ""
    made = unsaved = Made()
    began = saved = time.monotonic()
    done = 0
    for number in numbers:
        since = time.monotonic()
        left = time_left(since - began, done=done, left=here - done)
        progress(f"{job.entry.name}: {before + done} of {before + here}{where}{left}")
        images, now = job.attacked(number), time.monotonic()
        one = Made(batches={number: images}, seconds=(now - since) / world)
        made, unsaved, done = made.and_also(one), unsaved.and_also(one), done + len(images)
        if save and now - saved > _KEEP_EVERY_S:
            save(unsaved)
            unsaved, saved = Made(), now
    return made


def _check_same(entry: SuiteEntry, keys: Sequence[str]) -> None:
    """Refuses processes whose attacks are not the same."""
    for rank, key in enumerate(keys):
        if key != keys[0]:
            raise SetupError(
                f"{entry.name}: expected the same attack on the same images of the same network in every process, got "
                f"another in process {rank} of {len(keys)}; give all machines the same code, libraries, run and data"
            )


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
