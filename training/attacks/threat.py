"""Threat models: a norm as a small object that starts, steps and projects."""

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from service.errors import SetupError
from training.shard import count_of_all, own_of_all

__all__ = ["L2", "NORMS", "Linf", "Norm", "named_norm", "uniform"]


class Norm(Protocol):
    """Geometry of a ball around each image; every method treats each image alone.

    Shapes: all tensors (N, C, H, W); a delta is attacked minus clean.
    """

    def random_start(self, images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Deltas drawn uniformly from the ball."""

    def steepest(self, gradients: Tensor) -> Tensor:
        """The directions of length 1 in which a linear function with these gradients rises most."""

    def project(self, deltas: Tensor, eps: float) -> Tensor:
        """The nearest deltas inside the ball."""

    def size(self, deltas: Tensor) -> Tensor:
        """(N,) lengths of the deltas."""


def uniform(images: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [-1, 1) of the images' shape, drawn on the generator's device."""
    shape = (count_of_all(len(images), generator), *images.shape[1:])
    draws = torch.rand(shape, generator=generator, device=generator.device)
    return (2 * own_of_all(draws, generator) - 1).to(images)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


class Linf:
    """The largest change of any value."""

    def random_start(self, images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Every value uniform in [-eps, eps)."""
        return eps * uniform(images, generator)

    def steepest(self, gradients: Tensor) -> Tensor:
        """The signs."""
        return gradients.sign()

    def project(self, deltas: Tensor, eps: float) -> Tensor:
        """Every value clipped."""
        return deltas.clamp(-eps, eps)

    def size(self, deltas: Tensor) -> Tensor:
        """The largest absolute value of each image."""
        return deltas.abs().flatten(1).amax(dim=1)


class L2:
    """Euclidean length of the change."""

    def random_start(self, images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """A uniform direction at a length eps * u^(1/d), u uniform: uniform in the ball."""
        count = count_of_all(len(images), generator)
        normal = torch.randn((count, *images.shape[1:]), generator=generator, device=generator.device)
        u = torch.rand(count, generator=generator, device=generator.device)
        normal, u = (own_of_all(draws, generator).to(images) for draws in (normal, u))
        dimensions = math.prod(images.shape[1:])
        return self.steepest(normal) * _per_image(eps * u ** (1 / dimensions))

    def steepest(self, gradients: Tensor) -> Tensor:
        """The gradients at unit length; 0 stays 0."""
        # Dividing by the largest value first keeps squares of tiny gradients from vanishing.
        scaled = gradients / _per_image(gradients.abs().flatten(1).amax(dim=1).clamp_min(1e-30))
        return scaled / _per_image(self.size(scaled).clamp_min(1e-12))

    def project(self, deltas: Tensor, eps: float) -> Tensor:
        """Longer deltas shortened to eps."""
        return deltas * _per_image((eps / self.size(deltas).clamp_min(1e-12)).clamp_max(1.0))

    def size(self, deltas: Tensor) -> Tensor:
        """Euclidean length of each image's delta."""
        lengths: Tensor = torch.linalg.vector_norm(deltas.flatten(1), dim=1)
        return lengths


NORMS: Mapping[str, Norm] = {"linf": Linf(), "l2": L2()}


def named_norm(name: str) -> Norm:
    """The norm of this name.

    Raises:
        SetupError: there is none.
    """
    if name not in NORMS:
        raise SetupError(f"norm: expected one of {', '.join(NORMS)}, got {name!r}")
    return NORMS[name]
