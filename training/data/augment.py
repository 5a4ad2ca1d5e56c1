"""Random changes of training images that keep their class; every draw comes from the generator passed in.

A strength of 0 returns the images and draws nothing.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from training.sections import TrainConfig
from training.shard import count_of_all, own_of_all

__all__ = ["augmented", "drawn_moves", "flipped", "lit", "moved", "warped"]


def augmented(images: Tensor, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """A recipe's augmentations of images (N, C, H, W) in [0, 1], the shift left out, one after the other."""
    # In bf16 the grid of a turn would be off by a fifth of a pixel at 224 pixels.
    with torch.autocast(images.device.type, enabled=False):
        images = warped(images, config.rotate, config.zoom, generator)
        images = lit(images, config.brightness, config.contrast, generator)
        return flipped(images, generator) if config.flip else images


def drawn_moves(count: int, pixels: int, generator: torch.Generator) -> Tensor | None:
    """(2, N, 1) whole numbers of pixels from -pixels to pixels, down and across; None for 0 pixels."""
    if pixels == 0:
        return None
    moves = torch.randint(-pixels, pixels + 1, (2, count_of_all(count, generator), 1), generator=generator)
    return own_of_all(moves, generator, dim=1)


def moved(images: Tensor, moves: Tensor | None) -> Tensor:
    """Each image moved by a whole number of pixels each way, its edge repeated; -moves undo it but for the edge.

    Args:
        images: (N, C, H, W).
        moves: as drawn_moves() gives them.
    """
    if moves is None:
        return images
    count, _, height, width = images.shape
    moves = moves.to(images.device)
    rows = (torch.arange(height, device=images.device) + moves[0]).clamp(0, height - 1)  # (N, H)
    columns = (torch.arange(width, device=images.device) + moves[1]).clamp(0, width - 1)  # (N, W)
    every = torch.arange(count, device=images.device)[:, None, None]
    seen = images.permute(0, 2, 3, 1)[every, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return seen.permute(0, 3, 1, 2)


def warped(images: Tensor, degrees: float, zoom: float, generator: torch.Generator) -> Tensor:
    """Each image turned by up to `degrees` either way and scaled by 1 - zoom to 1 + zoom about its centre, bilinearly.

    Args:
        images: (N, C, H, W).
        degrees: the largest angle.
        zoom: the largest change of size, below 1.
        generator: of angles and sizes.
    """
    if degrees == 0 and zoom == 0:
        return images
    draws = _two_draws(images, generator)
    angles, sizes = draws[0] * math.radians(degrees), 1 + zoom * draws[1]
    cosines, sines = angles.cos() / sizes, angles.sin() / sizes
    _, _, height, width = images.shape
    # Grid coordinates run from -1 to 1 on both axes, so a turn of an oblong image needs its proportions.
    across = torch.stack([cosines, -sines * height / width, torch.zeros_like(cosines)], dim=1)
    down = torch.stack([sines * width / height, cosines, torch.zeros_like(cosines)], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1).to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False).clamp(0, 1)


def lit(images: Tensor, brightness: float, contrast: float, generator: torch.Generator) -> Tensor:
    """Each image m + (x - m) c + b clipped to [0, 1], m its mean, b in +-brightness, c in 1 +- contrast.

    Args:
        images: (N, C, H, W) in [0, 1].
        brightness: the largest b.
        contrast: the largest change of c, below 1.
        generator: of b and c.
    """
    if brightness == 0 and contrast == 0:
        return images
    draws = _two_draws(images, generator).to(images)[:, :, None, None, None]
    means = images.mean(dim=(1, 2, 3), keepdim=True)
    return (means + (images - means) * (1 + contrast * draws[0]) + brightness * draws[1]).clamp(0, 1)


def flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (N, C, H, W) mirrored left to right with probability 1/2."""
    draws = torch.rand(count_of_all(len(images), generator), generator=generator)
    mirror = own_of_all(draws, generator).to(images.device) < 0.5
    return torch.where(mirror[:, None, None, None], images.flip(3), images)


def _two_draws(images: Tensor, generator: torch.Generator) -> Tensor:
    """(2, N) uniform in [-1, 1)."""
    draws = torch.rand(2, count_of_all(len(images), generator), generator=generator)
    return 2 * own_of_all(draws, generator, dim=1) - 1
