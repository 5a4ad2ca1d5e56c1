"""One look of an attack at its target: what the target says of the iterates, and gradients of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from service.errors import SetupError
from training.attacks.adaptive.target import Aim, Target, views

__all__ = ["Look"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """N iterates and what the target says of them, connected for gradients."""

    images: Tensor
    """(N, C, H, W), the iterates as the target sees them; the leaf of every gradient."""
    logits: Tensor
    """(N, L)."""
    margins: Tensor
    """(N,), falls as the label gets wronger, below 0 where the image fools."""
    suspicion: Tensor
    """(N,), what the verdict goes by."""
    guide: Tensor
    """(N,), the suspicion that is descended; the same unless the attack has a guide of its own."""
    crossed: Tensor
    """(N,) whether the margin is below -kappa."""
    step: int
    """From 0."""

    @classmethod
    def at(cls, images: Tensor, *, target: Target, aim: Aim, guide: Target | None, kappa: float, step: int) -> "Look":
        """Looks at images (N, C, H, W)."""
        images = images.detach().requires_grad_(True)
        logits, suspicion = views(target, images)
        margins = aim(logits)
        return cls(
            images=images,
            logits=logits,
            margins=margins,
            suspicion=suspicion,
            guide=suspicion if guide is None else views(guide, images)[1],
            crossed=margins.detach() < -kappa,
            step=step,
        )

    def gradient(self, values: Tensor) -> Tensor:
        """Gradients of (N,) values by the iterates, (N, C, H, W); 0 where one is not finite.

        Raises:
            SetupError: the values have no gradient.
        """
        if not values.requires_grad:
            raise SetupError(
                "target: expected logits and suspicion with a gradient, got one without; attack a differentiable "
                "stand-in, such as GraphTarget for p-values, or use an attack that needs no gradient"
            )
        # A sum, not a mean: each image's gradient is then the same in any batch.
        (gradients,) = torch.autograd.grad(
            values.sum(), self.images, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.nan_to_num(gradients, nan=0.0, posinf=0.0, neginf=0.0)
