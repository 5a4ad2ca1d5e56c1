"""What adaptive attacks are aimed at: a classifier and its suspicion, both with a gradient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks.objectives import margin
from training.attacks.protocol import undisturbed

__all__ = ["Aim", "Target", "Turned", "aim_at", "clean_spread", "held", "views"]


class Target(Protocol):
    """Images to logits and suspicion, each image by itself."""

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Looks at N images.

        Args:
            images: (N, C, H, W) in [0, 1].

        Returns:
            (N, L) logits and (N,) suspicion, larger = more suspicious, both differentiable.
        """


Aim = Callable[[Tensor], Tensor]
"""Logits (N, L) to (N,) margins that fall as the label gets wronger; below 0 the image fools."""


def aim_at(labels: Tensor, targets: Tensor | None = None) -> Aim:
    """Margins of the true class over every other or, with `targets`, of every other class over the target.

    Args:
        labels: (N,) true classes.
        targets: (N,) classes to be led to; None for any wrong one.

    Raises:
        SetupError: a target is its image's true class.
    """
    if targets is None:
        return lambda logits: -margin(logits, labels)
    own = torch.nonzero(targets == labels)[:, 0].tolist()
    if own:
        raise SetupError(
            f"image {own[0]}: expected a wrong class as target, got its true class {int(labels[own[0]])}; leave such "
            "images out or aim them at another class"
        )
    return lambda logits: margin(logits, targets)


class Turned:
    """A target whose suspicion has the other sign, for attacks that raise it.

    One that is not finite counts as larger than all, as it does for the verdict.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See Target."""
        logits, suspicion = self.target(images)
        return logits, torch.where(torch.isfinite(suspicion), -suspicion, -torch.finfo(suspicion.dtype).max)


def views(target: Target, images: Tensor) -> tuple[Tensor, Tensor]:
    """The target's answer, its shapes checked: a suspicion of (N, 1) would mix the images of a batch.

    Raises:
        SetupError: it is not (N, L) and (N,).
    """
    logits, suspicion = target(images)
    count = len(images)
    if logits.ndim != 2 or len(logits) != count or suspicion.shape != (count,):
        raise SetupError(
            f"target: expected logits ({count}, L) and suspicion ({count},), got {tuple(logits.shape)} and "
            f"{tuple(suspicion.shape)}; give one row of logits and one number for each image"
        )
    return logits, suspicion


@contextmanager
def held(target: Target) -> Iterator[None]:
    """As `undisturbed` where the target is a module; any other must look after its own modes."""
    with undisturbed(target if isinstance(target, nn.Module) else nn.Identity()):
        yield


def clean_spread(target: Target, images: Tensor) -> float:
    """Interquartile range of the suspicion of clean images (N, C, H, W), the unit in which a Lagrangian weighs it.

    Raises:
        SetupError: it is 0 or not finite.
    """
    with held(target), torch.no_grad():
        _, suspicion = views(target, images)
    quartiles = torch.quantile(suspicion.double(), torch.tensor([0.25, 0.75]).to(suspicion.device).double())
    spread = float(quartiles[1] - quartiles[0])
    if not 0 < spread < float("inf"):
        raise SetupError(
            f"clean images: expected suspicions that differ and are finite, got an interquartile range of {spread:g}; "
            "give more images"
        )
    return spread
