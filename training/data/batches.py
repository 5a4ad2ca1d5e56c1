"""8-bit images in memory, handed out as float batches."""

import numpy as np
import torch
from torch import Tensor

from training.attacks.rounding import from_8_bit
from training.data.types import ImageSet
from training.shard import count_of_all, own_of_all

__all__ = ["ImageSource", "epoch_order"]


class ImageSource:
    """The images of a part on a device; random draws come from the generators passed in."""

    def __init__(self, images: ImageSet, device: torch.device, *, keeps_images: bool = True) -> None:
        """Takes whether all images go to the device at once, or each when it is taken."""
        self._images = torch.from_numpy(images.images)  # (N, H, W, C)
        if keeps_images:
            self._images = self._images.to(device)
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

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, H, W, C."""
        count, height, width, channels = self._images.shape
        return count, height, width, channels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Tensor) -> Tensor:
        """Float images (n, C, H, W) in [0, 1] at these positions (n,)."""
        return from_8_bit(self._images[positions.to(self._images.device)].to(self.device))

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
