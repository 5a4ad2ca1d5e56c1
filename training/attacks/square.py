"""Square attack: random squares of the image are changed, and a change is kept when it helps; no gradients."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.attacks.checks import check_budget
from training.attacks.objectives import margin
from training.attacks.protocol import undisturbed
from training.attacks.threat import named_norm

__all__ = ["Square"]

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries: those after which the share of pixels that a square covers halves."""

_Window = tuple[Tensor, Tensor, Tensor, Tensor]
"""Index of one square in each image of a batch."""


@dataclass(frozen=True, kw_only=True)
class Square:
    """Random search on the logit margin.

    An image leaves as soon as it fools; one that the model gets wrong already comes back as it is.

    Source: Andriushchenko et al. 2020 (arXiv 1912.00049). For Linf a draw that would change nothing is turned into
    its opposite, where they draw again.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float
    queries: int = 5_000
    p_init: float = 0.8
    """Share of the pixels that the first squares cover."""

    def __post_init__(self) -> None:
        check_budget("square", self.norm, self.eps, 0.0)
        if self.queries < 1:
            raise ValueError(f"square: expected queries of at least 1, got {self.queries}")
        if not 0 < self.p_init <= 1:
            raise ValueError(f"square: expected p_init above 0, at most 1, got {self.p_init}")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1] and in the ball."""
        with undisturbed(model), torch.no_grad():
            found, _, _ = self.climb(lambda tried, rows: margin(model(tried), labels[rows]), images.detach(), generator)
        return found

    def climb(
        self, losses_of: Callable[[Tensor, Tensor], Tensor], images: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The search for any loss; an image leaves once its loss is 0 or more.

        Args:
            losses_of: tried images (M, C, H, W) and the rows (M,) of the images that they are of, to losses (M,).
            images: (N, C, H, W) in [0, 1].
            generator: of every random number.

        Returns:
            (N, C, H, W) images in the ball, (N,) their losses, (N,) queries after the clean image's that each took.
        """
        start, propose = (_stripes, _change_linf) if self.norm == "linf" else (_tiles, _change_l2)
        every = torch.arange(len(images), device=images.device)
        rows = torch.nonzero(losses_of(images, every) < 0)[:, 0]  # of those that still resist
        found, queries = images.clone(), torch.zeros_like(every)
        found[rows] = start(images, self.eps, generator)[rows]
        losses = losses_of(found, every)
        queries[rows] = 1
        for query in range(1, self.queries):
            rows = rows[losses[rows] < 0]
            # Drawn for all images, so that the numbers of one do not depend on which of the others resist.
            draws = _Draws.of(images, generator)
            if not len(rows):
                break
            tried = propose(found[rows], images[rows], self.eps, self.share(query), draws.take(rows))
            tried_losses = losses_of(tried, rows)
            queries[rows] += 1
            better = tried_losses > losses[rows]
            found[rows[better]], losses[rows[better]] = tried[better], tried_losses[better]
        return found, losses, queries

    def share(self, query: int) -> float:
        """Share of the pixels that this query's square covers."""
        passed = sum(10_000 * query / self.queries > halving for halving in _HALVINGS)
        return float(self.p_init / 2**passed)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Draws:
    """Random numbers of one query."""

    places: Tensor
    """(N, 5) in [0, 1): top and left of two squares, and whether the L2 pattern lies or stands."""
    signs: Tensor
    """(N, C, 1, 1), -1 or 1."""

    @classmethod
    def of(cls, images: Tensor, generator: torch.Generator) -> "_Draws":
        """Draws for (N, C, H, W) images."""
        places = torch.rand(len(images), 5, generator=generator, device=generator.device)
        return cls(places=places.to(images), signs=_signs(images, generator, 1, 1))

    def take(self, rows: Tensor) -> "_Draws":
        """Those of some images."""
        return _Draws(places=self.places[rows], signs=self.signs[rows])

    def window(self, which: int, images: Tensor, size: int) -> _Window:
        """The first (0) or second (1) square of this many pixels a side."""
        height, width = images.shape[2:]
        free = torch.tensor([height - size + 1, width - size + 1], device=images.device)
        corner = (self.places[:, 2 * which : 2 * which + 2] * free).long().clamp_max(free - 1)  # (N, 2)
        span = torch.arange(size, device=images.device)
        return (
            torch.arange(len(images), device=images.device)[:, None, None, None],
            torch.arange(images.shape[1], device=images.device)[:, None, None],
            (corner[:, :1] + span)[:, None, :, None],
            (corner[:, 1:] + span)[:, None, None, :],
        )


def _signs(images: Tensor, generator: torch.Generator, height: int, width: int) -> Tensor:
    """-1 and 1, (N, C, height, width)."""
    shape = (*images.shape[:2], height, width)
    return (2 * torch.randint(2, shape, generator=generator, device=generator.device) - 1).to(images)


def _stripes(images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Each column of each channel moved by the whole budget, up or down."""
    return (images + eps * _signs(images, generator, 1, images.shape[3])).clamp(0, 1)


def _change_linf(found: Tensor, clean: Tensor, eps: float, share: float, draws: _Draws) -> Tensor:
    """One square of each image moved by the whole budget, each channel up or down."""
    height, width = found.shape[2:]
    size = min(max(round(math.sqrt(share * height * width)), 1), height, width)
    window = draws.window(0, found, size)
    up, down = (clean[window] + eps * sign * draws.signs for sign in (1, -1))
    up, down = up.clamp(0, 1), down.clamp(0, 1)
    idle = (up == found[window]).flatten(1).all(dim=1)
    tried = found.clone()
    tried[window] = torch.where(idle[:, None, None, None], down, up)
    return tried


def _tiles(images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Five by five hills and hollows whose height falls off from the middle, of length eps together."""
    height, width = images.shape[2:]
    side = max(min(height, width) // 5, 1)
    count = min(5, min(height, width))
    hills = _signs(images, generator, count, count).repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)
    pattern = pyramid(side, side).to(images).repeat(count, count)
    change = torch.zeros_like(images)
    top, left = (height - count * side) // 2, (width - count * side) // 2
    change[:, :, top : top + count * side, left : left + count * side] = hills * pattern
    return (images + eps * named_norm("l2").steepest(change)).clamp(0, 1)


def _change_l2(found: Tensor, clean: Tensor, eps: float, share: float, draws: _Draws) -> Tensor:
    """The length spent in one square, and what is unspent, moved into another, channel by channel."""
    height, width = found.shape[2:]
    largest = min(height, width)
    size = max(round(math.sqrt(share * height * width)), 3)
    size = min(size + (size + 1) % 2, largest - (largest + 1) % 2)  # odd, so that the pattern has a middle
    into, out = (draws.window(which, found, size) for which in (0, 1))
    change = found - clean
    unspent = (eps**2 - change.square().flatten(1).sum(dim=1)).clamp_min(0)[:, None, None, None]
    both = torch.zeros_like(change)
    both[into], both[out] = 1.0, 1.0
    spent = (change * both).square().sum(dim=(2, 3), keepdim=True)
    length = (spent + unspent / found.shape[1]).sqrt()  # (N, C, 1, 1)
    pattern = hill_and_hollow(size).to(found)
    stands = (draws.places[:, 4] < 0.5)[:, None, None, None]
    direction = draws.signs * torch.where(stands, pattern, pattern.T) + _unit(change[into])
    change[out] = 0.0
    change[into] = _unit(direction) * length
    return (clean + named_norm("l2").project(change, eps)).clamp(0, 1)


def _unit(values: Tensor) -> Tensor:
    """Each channel of each image divided by its length; 0 stays 0."""
    return values / values.square().sum(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-12)


def hill_and_hollow(size: int) -> Tensor:
    """(size, size) of length 1: the left half rises, the right half falls."""
    half = size // 2
    if not half:
        return torch.ones(1, 1)
    pattern = torch.cat([pyramid(size, half), -pyramid(size, size - half)], dim=1)
    return pattern / pattern.square().sum().sqrt()


def pyramid(height: int, width: int) -> Tensor:
    """(height, width) rings around a middle.

    With n = height // 2 the outermost has 1 / (n + 1)^2, and each one inwards adds 1 / n^2, 1 / (n - 1)^2, ..., 1.
    """
    middle = height // 2
    down = (torch.arange(height) - middle).abs()[:, None]
    across = (torch.arange(width) - width // 2).abs()[None, :]
    rings = middle - torch.maximum(down, across)  # how many rings lie outside of each pixel
    terms = [(rings >= ring) / (middle + 1 - ring) ** 2 for ring in range(middle + 1)]
    pattern: Tensor = torch.stack(terms).sum(dim=0)
    return pattern
