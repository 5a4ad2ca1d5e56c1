"""How smooth the kernels of the first convolution are."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from service.detection.types import Float64s
from training.models.pursuit import ConvDictionary

__all__ = ["Kernels", "first_kernels", "kernels", "roughness"]

_SHOWN = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Kernels:
    """The first layer of a network."""

    count: int
    shown: Float64s
    """(n, h, w, C), n of them drawn at random."""
    roughness: float | None
    """Over all of them; see `roughness`."""


def first_kernels(model: nn.Module) -> Float64s | None:
    """Weights (O, h, w, C) of the first convolution; None for a network without one."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | ConvDictionary):
            return module.weight.detach().cpu().double().permute(0, 2, 3, 1).numpy()
    return None


def roughness(weights: Float64s) -> float | None:
    """Mean |difference of neighbouring weights| over mean |weight|; smaller is smoother.

    Args:
        weights: (O, h, w, C).

    Returns:
        None for kernels of one pixel, which have no neighbours, and for weights that are all 0.
    """
    differences = [np.abs(np.diff(weights, axis=axis)).ravel() for axis in (1, 2)]
    all_differences = np.concatenate(differences)
    size = float(np.abs(weights).mean())
    if not all_differences.size or size == 0:
        return None
    return float(all_differences.mean()) / size


def kernels(model: nn.Module, seed: int) -> Kernels | None:
    """The first layer of the model, or None where it is no convolution.

    Source: the picture is that of Huang et al. 2022 (arXiv 2212.12732); the number is ours.
    """
    weights = first_kernels(model)
    if weights is None:
        return None
    drawn = np.sort(np.random.default_rng(seed).permutation(len(weights))[:_SHOWN])
    return Kernels(count=len(weights), shown=weights[drawn], roughness=roughness(weights))
