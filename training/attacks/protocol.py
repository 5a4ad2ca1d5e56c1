"""What an attack is, and how it leaves the model as it found it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["Attack", "undisturbed"]


class Attack(Protocol):
    """Gives one attacked image for each image, of the same shape and in [0, 1]."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacks each image by itself.

        Args:
            model: images to logits (N, classes); left as found.
            images: (N, C, H, W) in [0, 1].
            labels: (N,) true classes.
            generator: of every random number that the attack draws.
        """


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """The model in eval mode with frozen parameters; afterwards modes and requires_grad are as before.

    In eval mode batch statistics do not move, and gradients by torch.autograd.grad touch no `.grad`.
    """
    modes = [(module, module.training) for module in model.modules()]
    needs = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    for parameter, _ in needs:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, required in needs:
            parameter.requires_grad_(required)
