"""Adversarial weight perturbation: the gradient is taken where a small change of the weights raises the loss most.

    v = gamma ||w|| g / ||g||        for each weight tensor w with gradient g of the loss
    w <- w - rate * gradient of the loss at w + v

Source: Wu et al. 2020 (arXiv 2004.05884), one step as there; biases and normalisation are not perturbed. We differ in
perturbing against the whole loss of the recipe, its regularisers included.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.processes import ALONE, Processes

__all__ = ["perturbed_weights"]


@contextmanager
def perturbed_weights(
    model: nn.Module, loss: Callable[[], Tensor], gamma: float, processes: Processes = ALONE
) -> Iterator[None]:
    """The model at w + v; afterwards its weights are w again, bit for bit.

    Args:
        model: in train mode.
        loss: computes the loss of the model as it stands; the running statistics that this pass changes come back.
        gamma: relative size of the perturbation.
        processes: whose mean loss it is; all of them enter together.
    """
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = torch.autograd.grad(loss(), weights)
    processes.average(gradients)
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
        for weight, gradient in zip(weights, gradients, strict=True):
            length = torch.linalg.vector_norm(gradient).clamp_min(1e-20)
            weight.add_(gradient * (gamma * torch.linalg.vector_norm(weight) / length))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)
