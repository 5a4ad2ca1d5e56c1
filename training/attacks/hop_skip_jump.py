"""HopSkipJump: an attack that sees the label alone."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.attacks.adaptive.boundary_walk import BoundaryWalk
from training.attacks.protocol import undisturbed
from training.attacks.rounding import from_8_bit, nearest_8_bit
from training.attacks.threat import uniform
from training.checks import at_least

__all__ = ["HopSkipJump"]

_TINY = 1e-9
"""A ball that no 8-bit image but the clean one is in, so that every walk goes on to the end."""


@dataclass(frozen=True, kw_only=True)
class HopSkipJump:
    """The boundary walk of `training.attacks.adaptive` on the label, from noise; it looks for the smallest change.

    A start is uniform noise that is read wrongly; where none of many draws is, another image of the batch that is read
    as another class; an image that has none of them either comes back as it is.

    foolbox 3.3.4's divides its estimates by the length of the whole batch's, so that an image's steps shrink with the
    number of the others; this one takes each image by itself.

    Source: Chen et al. 2020 (arXiv 1904.02144); 28 turns from 100 probes are about 10,000 queries.
    """

    norm: Literal["linf", "l2"] = "linf"
    turns: int = 28
    probes: int = 100
    """Of the first turn; turn t has sqrt(t) times as many."""
    draws: int = 50
    """Noise images that are tried as a start."""

    def __post_init__(self) -> None:
        for name in ("turns", "probes", "draws"):
            at_least(1, f"hop skip jump: {name}", getattr(self, name))

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1], whole multiples of 1/255.

        Args:
            model: see Attack.
            images: of 8 bits divided by 255.
            labels: see Attack.
            generator: see Attack.
        """

        def target(images: Tensor) -> tuple[Tensor, Tensor]:
            return model(images), torch.zeros(
                len(images), device=images.device
            )  # to a classifier nothing is suspicious

        with undisturbed(model), torch.no_grad():
            walk = BoundaryWalk(
                norm=self.norm,
                eps=_TINY,
                threshold=0.0,
                starts=self._starts(model, images.detach(), labels, generator),
                turns=self.turns,
                probes=self.probes,
                stays_inside=False,
            )
            return walk(target, images, labels, generator).images

    def _starts(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        read = torch.as_tensor(model(images)).argmax(dim=1)
        starts, lacks = images.clone(), read == labels
        for _ in range(self.draws):
            noise = from_8_bit(nearest_8_bit((1 + uniform(images, generator)) / 2)).to(images)
            if lacks.any():
                fools = lacks & (torch.as_tensor(model(noise)).argmax(dim=1) != labels)
                starts[fools], lacks = noise[fools], lacks & ~fools
        for row in torch.nonzero(lacks)[:, 0].tolist():
            others = torch.nonzero(read != labels[row])[:, 0]
            if len(others):
                starts[row] = images[others[row % len(others)]]
        return starts
