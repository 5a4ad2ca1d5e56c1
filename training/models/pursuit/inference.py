"""Activations of stacked dictionaries: by one pass, layer after layer, or all layers at once.

    feed forward    w_j = relu(B_j^T s_j - lam_j)
    layered         w_j = argmin_{w >= 0} 1/2 ||s_j - B_j w||^2 + lam_j ||w||_1, j = 1..L in turn
    deep            {w_j} = argmin_{w >= 0} sum_j 1/2 ||r_j||^2 + lam_j ||w_j||_1

    s_j = w_{j-1} + sum of w_i over the skips into j, w_0 = image;   r_j = s_j - B_j w_j

One sweep of the deep problem goes through j = 1..L with the newest values; no sweep raises the sum, which is convex:

    w_j <- relu(w_j - g_j (-B_j^T r_j + r_{j+1} + sum of r_k over the skips out of j into k + lam_j))
    g_j = 1 / (||B_j||^2 + 1 + number of those skips), without r_{j+1} and its 1 in the last layer

Source: implemented from the abstract of Cazenavette et al. 2021 (arXiv 2011.14427), whose text and code were not
available to us: the sum, start, order and steps are our reading. Layered basis pursuit, and the forward pass as its
approximation, are of Papyan et al. 2017 (arXiv 1607.08194).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.models.pursuit.dictionary import Dictionary

__all__ = ["Stack", "feed_forward", "layered", "objective", "swept"]

Codes = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Dictionaries from the image up, and which activations skip layers."""

    layers: Sequence[Dictionary]
    skips: Sequence[tuple[int, int]] = ()
    """(i, k): w_i joins what layer k explains; layers count from 0, i < k - 1, and their shapes agree."""

    def signal(self, images: Tensor, codes: Sequence[Tensor], layer: int) -> Tensor:
        """s_j, (N, *signal_shape), of images (N, C, H, W) and the codes below it."""
        total = codes[layer - 1] if layer else images
        for below, above in self.skips:
            if above == layer:
                total = total + codes[below]
        return total

    def step(self, layer: int) -> Tensor:
        """g_j, a scalar tensor."""
        above = int(layer + 1 < len(self.layers)) + sum(below == layer for below, _ in self.skips)
        return 1 / (self.layers[layer].squared_norm + above)


def feed_forward(stack: Stack, images: Tensor) -> Codes:
    """The activations of each layer by one pass.

    Args:
        images: (N, C, H, W).

    Returns:
        (N, *code_shape) a layer, at least 0, from the lowest.
    """
    codes: list[Tensor] = []
    for number, layer in enumerate(stack.layers):
        codes.append(F.relu(layer.analyse(stack.signal(images, codes, number)) - layer.threshold))
    return tuple(codes)


def layered(stack: Stack, images: Tensor, steps: int, *, from_zero: bool = False) -> Codes:
    """The same by proximal steps on each layer's own problem, those below it being settled.

    Args:
        steps: of size 1 / ||B_j||^2 in each layer.
        from_zero: begins at 0 instead of where the forward pass would be.
    """
    codes: list[Tensor] = []
    for number, layer in enumerate(stack.layers):
        signal = stack.signal(images, codes, number)
        code = F.relu(layer.analyse(signal) - layer.threshold)
        code = torch.zeros_like(code) if from_zero else code
        for _ in range(steps):
            slope = layer.threshold - layer.analyse(signal - layer.synthesise(code))
            code = F.relu(code - slope / layer.squared_norm)
        codes.append(code)
    return tuple(codes)


def swept(stack: Stack, images: Tensor, codes: Sequence[Tensor]) -> Codes:
    """The codes after one sweep of the deep problem."""
    # A sweep changes w_j after its last use of B_j w_j, so that this is of old values alone.
    explained = [layer.synthesise(code) for layer, code in zip(stack.layers, codes, strict=True)]
    current = list(codes)
    for number, layer in enumerate(stack.layers):
        slope = layer.threshold - layer.analyse(stack.signal(images, current, number) - explained[number])
        for above in _explaining(stack, number):
            slope = slope + (stack.signal(images, current, above) - explained[above])
        current[number] = F.relu(current[number] - stack.step(number) * slope)
    return tuple(current)


def objective(stack: Stack, images: Tensor, codes: Sequence[Tensor]) -> Tensor:
    """sum_j 1/2 ||r_j||^2 + lam_j ||w_j||_1 of each image, (N,)."""
    total = images.new_zeros(len(images))
    for number, (layer, code) in enumerate(zip(stack.layers, codes, strict=True)):
        residual = stack.signal(images, codes, number) - layer.synthesise(code)
        total = total + residual.square().flatten(1).sum(dim=1) / 2
        total = total + (layer.threshold * code).flatten(1).sum(dim=1)  # codes are at least 0
    return total


def _explaining(stack: Stack, layer: int) -> list[int]:
    """The layers above whose signal this layer's activations are part of."""
    following = [layer + 1] if layer + 1 < len(stack.layers) else []
    return following + [above for below, above in stack.skips if below == layer]
