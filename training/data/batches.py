"""8-bit images in memory, handed out as float batches."""

import numpy as np
import torch
from torch import Tensor

from training.attacks.rounding import from_8_bit
from training.data.types import ImageSet
from training.shard import count_of_all, own_of_all

__all__ = ["ImageSource", "epoch_order", "flipped", "shifted"]


class ImageSource:
    """The images of a part on a device; random draws come from the generators passed in."""

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        self._images = torch.from_numpy(images.images).to(device)  # (N, H, W, C)
        self.labels = torch.from_numpy(images.labels).to(device)  # (N,)
        self.device = device
        order = np.argsort(images.labels, kind="stable")
        self._by_class = torch.from_numpy(order)  # positions, class after class
        counts = np.bincount(images.labels)
        self._counts = torch.from_numpy(counts)
        starts = np.cumsum(counts) - counts
        self._starts = torch.from_numpy(starts)
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order)) - starts[images.labels[order]]
        self._ranks = torch.from_numpy(ranks)  # (N,) place of each image within its class

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Tensor) -> Tensor:
        """Float images (n, C, H, W) in [0, 1] at these positions (n,)."""
        return from_8_bit(self._images[positions.to(self.device)])

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Random different positions (count,), or all where there are fewer."""
        return torch.randperm(len(self), generator=generator)[:count]

    def draw_other_of_class(self, positions: Tensor, generator: torch.Generator) -> Tensor:
        """For each position (n,) that of another random image of its class, (n,); its own where there is no other."""
        labels = self.labels.cpu()[positions]
        others = self._counts[labels] - 1
        draws = torch.rand(count_of_all(len(positions), generator), generator=generator, dtype=torch.float64)
        within = (own_of_all(draws, generator) * others).long()
        within += (within >= self._ranks[positions]) & (others > 0)  # steps over the image itself
        return self._by_class[self._starts[labels] + within]


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order (count,) in which an epoch visits the images; seed and epoch alone decide it."""
    random = np.random.default_rng(np.random.SeedSequence([seed, epoch]))
    return torch.from_numpy(random.permutation(count))


def shifted(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Each image moved by a random whole number of pixels each way, its edge repeated.

    Args:
        images: (N, C, H, W).
        pixels: the farthest move; 0 returns the images and draws nothing.
        generator: of the moves.
    """
    if pixels == 0:
        return images
    count, _, height, width = images.shape
    moves = torch.randint(-pixels, pixels + 1, (2, count_of_all(count, generator), 1), generator=generator)
    moves = own_of_all(moves, generator, dim=1).to(images.device)
    rows = (torch.arange(height, device=images.device) + moves[0]).clamp(0, height - 1)  # (N, H)
    columns = (torch.arange(width, device=images.device) + moves[1]).clamp(0, width - 1)  # (N, W)
    every = torch.arange(count, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[every, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return moved.permute(0, 3, 1, 2)


def flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (N, C, H, W) mirrored left to right with probability 1/2."""
    draws = torch.rand(count_of_all(len(images), generator), generator=generator)
    mirror = own_of_all(draws, generator).to(images.device) < 0.5
    return torch.where(mirror[:, None, None, None], images.flip(3), images)
