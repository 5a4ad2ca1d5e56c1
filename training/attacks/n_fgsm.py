"""One gradient step from a noisy image, for cheap training."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.attacks.checks import check_budget
from training.attacks.objectives import cross_entropy, input_gradients
from training.attacks.protocol import undisturbed
from training.attacks.threat import Linf, uniform

__all__ = ["NFgsm"]


@dataclass(frozen=True, kw_only=True)
class NFgsm:
    """x' = clip_[0,1](x + noise + step * sign(grad CE at x + noise)), noise uniform in +-k eps.

    It may leave the eps ball, on purpose: the noise adds to the step, which wards off catastrophic
    overfitting. For training only; an evaluation must not use it.

    Source: de Jorge et al. 2022 (arXiv 2202.01181), k = 2 and step = eps as there.
    """

    eps: float
    step: float = 0.0
    """0 takes eps."""
    k: float = 2.0

    def __post_init__(self) -> None:
        check_budget("n_fgsm", "linf", self.eps, self.step)
        if not self.k >= 0:
            raise ValueError(f"n_fgsm: expected k of at least 0, got {self.k}")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1], up to k eps + step away."""
        noisy = images.detach() + self.k * self.eps * uniform(images, generator)
        with undisturbed(model):
            gradients, _ = input_gradients(model, noisy, labels, cross_entropy)
        return (noisy + (self.step or self.eps) * Linf().steepest(gradients)).clamp(0, 1)
