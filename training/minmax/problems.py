"""The three experiments: losses of a perturbation over domains, the box it moves in, and what counts as failing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from training.attacks.minmax import lead
from training.minmax.transforms import TRANSFORMS

__all__ = ["Ensemble", "Problem", "Transforms", "Universal"]

_PENALTY = 0.25
"""Of a transformed perturbation's L2 length, for each image by itself."""


class Problem(Protocol):
    """N perturbations, each against K domains. A domain's label is what it says of its clean image."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the K domains; none where they mean nothing."""

    @property
    def images(self) -> Tensor:
        """Clean ones that a perturbation is added to, (N, M, C, H, W); M is 1 but for universal ones."""

    @property
    def box(self) -> tuple[Tensor, Tensor]:
        """Low and high end (N, C, H, W) of a perturbation under which every image stays one."""

    def rows(self, which: slice) -> "Problem":
        """Of some of the perturbations."""

    def losses(self, deltas: Tensor) -> Tensor:
        """(N, K) of deltas (N, C, H, W), with gradient; smaller = closer to failing."""

    def fails(self, deltas: Tensor) -> Tensor:
        """(N, K), where a domain no longer says its label."""


def _said(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(images)).argmax(dim=1)


class _OneEach:
    """What problems with one perturbation of each image have in common."""

    clean: Tensor

    @property
    def images(self) -> Tensor:
        """See Problem."""
        return self.clean[:, None]

    @property
    def box(self) -> tuple[Tensor, Tensor]:
        """See Problem."""
        return -self.clean, 1 - self.clean


@dataclass(frozen=True, eq=False)
class Ensemble(_OneEach):
    """One perturbation of each image against several networks."""

    models: Sequence[nn.Module]
    """In eval mode, frozen."""
    names: tuple[str, ...]
    clean: Tensor
    """(N, C, H, W)."""

    def rows(self, which: slice) -> "Ensemble":
        """See Problem."""
        return Ensemble(self.models, self.names, self.clean[which])

    def losses(self, deltas: Tensor) -> Tensor:
        """See Problem."""
        attacked = self.clean + deltas
        pairs = zip(self.models, self._labels, strict=True)
        return torch.stack([lead(model(attacked), labels) for model, labels in pairs], dim=1)

    def fails(self, deltas: Tensor) -> Tensor:
        """See Problem."""
        attacked = self.clean + deltas
        pairs = zip(self.models, self._labels, strict=True)
        return torch.stack([_said(model, attacked) != labels for model, labels in pairs], dim=1)

    @cached_property
    def _labels(self) -> list[Tensor]:
        return [_said(model, self.clean) for model in self.models]


@dataclass(frozen=True, eq=False)
class Universal:
    """One perturbation for a group of images against one network."""

    model: nn.Module
    """In eval mode, frozen."""
    clean: Tensor
    """(N, K, C, H, W), N groups of K."""

    @property
    def names(self) -> tuple[str, ...]:
        """See Problem: places in a group mean nothing."""
        return ()

    @property
    def images(self) -> Tensor:
        """See Problem."""
        return self.clean

    @property
    def box(self) -> tuple[Tensor, Tensor]:
        """See Problem: the boxes of a group meet in one."""
        return -self.clean.amin(dim=1), 1 - self.clean.amax(dim=1)

    def rows(self, which: slice) -> "Universal":
        """See Problem."""
        return Universal(self.model, self.clean[which])

    def losses(self, deltas: Tensor) -> Tensor:
        """See Problem."""
        return lead(self.model(self._attacked(deltas)), self._labels).view(self.clean.shape[:2])

    def fails(self, deltas: Tensor) -> Tensor:
        """See Problem."""
        return (_said(self.model, self._attacked(deltas)) != self._labels).view(self.clean.shape[:2])

    def _attacked(self, deltas: Tensor) -> Tensor:
        return (self.clean + deltas[:, None]).flatten(0, 1)

    @cached_property
    def _labels(self) -> Tensor:
        return _said(self.model, self.clean.flatten(0, 1))


@dataclass(frozen=True, eq=False)
class Transforms(_OneEach):
    """One perturbation of each image that has to survive several transformations, against one network."""

    model: nn.Module
    """In eval mode, frozen."""
    clean: Tensor
    """(N, C, H, W)."""

    @property
    def names(self) -> tuple[str, ...]:
        """See Problem."""
        return tuple(TRANSFORMS)

    def rows(self, which: slice) -> "Transforms":
        """See Problem."""
        return Transforms(self.model, self.clean[which])

    def losses(self, deltas: Tensor) -> Tensor:
        """See Problem."""
        losses = []
        for transform, before, labels in zip(TRANSFORMS.values(), self._before, self._labels, strict=True):
            after = transform(self.clean + deltas)
            moved = (after - before).flatten(1).norm(dim=1)
            losses.append(lead(self.model(after), labels) + _PENALTY * moved)
        return torch.stack(losses, dim=1)

    def fails(self, deltas: Tensor) -> Tensor:
        """See Problem."""
        pairs = zip(TRANSFORMS.values(), self._labels, strict=True)
        said = [(_said(self.model, transform(self.clean + deltas)), labels) for transform, labels in pairs]
        return torch.stack([now != labels for now, labels in said], dim=1)

    @cached_property
    def _before(self) -> list[Tensor]:
        return [transform(self.clean) for transform in TRANSFORMS.values()]

    @cached_property
    def _labels(self) -> list[Tensor]:
        return [_said(self.model, before) for before in self._before]
