"""The alternating min-max algorithm: one perturbation against several domains, and weights that find the hardest.

    min over delta in X, max over w in the simplex:    sum_i w_i F_i(delta) - gamma / 2 ||w - 1/K||^2
    delta <- Proj_X( delta - 1/alpha grad sum_i w_i F_i )
    w     <- Proj_simplex( w + 1/beta (F(delta) - gamma (w - 1/K)) ),        F anew at the new delta

X is a ball cut by the box of images. What a domain is (a model, an image, a transformation) stands in the function F.

Source: Wang et al. 2021 (NeurIPS), APGDA. From its equations; of the released code we repeat neither the wrong-class
term that is always 0, nor steps that go up in one experiment and down in another, nor budgets held only roughly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from service.errors import SetupError
from training.attacks.ball import Ball
from training.attacks.objectives import margin
from training.attacks.projection import into_ball, onto_simplex

__all__ = ["CONFIDENCE", "DomainLosses", "Found", "MinMax", "lead", "next_weights"]

CONFIDENCE = 50.0
"""How far a wrong logit may lead before an image counts as done: as good as never, so that attacks go on."""

DomainLosses = Callable[[Tensor], Tensor]
"""Deltas (N, C, H, W) to the losses (N, K) of K domains; smaller = closer to fooling that domain."""


def lead(logits: Tensor, labels: Tensor) -> Tensor:
    """F of the papers' attacks, (N,): max(0, z_y - max of the others + 50) of logits (N, classes).

    Source: Carlini and Wagner 2017 (arXiv 1608.04644), their f6 with confidence 50.
    """
    return (CONFIDENCE - margin(logits, labels)).clamp_min(0)


def next_weights(weights: Tensor, losses: Tensor, *, beta: float, gamma: float) -> Tensor:
    """One step of the weights (N, K) up the losses (N, K), each row by itself."""
    even = 1 / weights.shape[1]
    return onto_simplex(weights + (losses - gamma * (weights - even)) / beta)


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What the algorithm ended with."""

    deltas: Tensor
    """(N, C, H, W), in the ball and the box."""
    weights: Tensor
    """(N, K) on the simplex: which domains were hard."""


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """Settings of the algorithm."""

    ball: Ball
    steps: int = 50
    alpha: float
    """1/alpha is the step of the perturbation."""
    beta: float
    """1/beta is the step of the weights."""
    gamma: float
    """How dearly weights are held at 1/K."""
    weights: tuple[float, ...] | Literal["learned", "average"] = "learned"
    """`average` holds 1/K, numbers hold themselves."""
    normalise: bool = False
    """Gradients divided by their L2 length, so that 1/alpha is the length of a step."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SetupError(f"steps: expected at least 1, got {self.steps}")
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise SetupError(f"{name}: expected a number above 0, got {value}")
        if not (math.isfinite(self.gamma) and self.gamma >= 0):
            raise SetupError(f"gamma: expected a number of at least 0, got {self.gamma}")
        if not self.gamma < 2 * self.beta:
            raise SetupError(
                f"gamma: expected less than 2 beta, {2 * self.beta:g}, got {self.gamma:g}; "
                "at more the weights swing farther out with every step"
            )
        if not isinstance(self.weights, str):
            on_simplex = all(w >= 0 for w in self.weights) and math.isclose(sum(self.weights), 1, abs_tol=1e-6)
            if not on_simplex:
                raise SetupError(f"weights: expected none below 0 and a sum of 1, got {list(self.weights)}")

    def __call__(self, losses_of: DomainLosses, start: Tensor, low: Tensor, high: Tensor) -> Found:
        """Alternates for `steps`.

        Args:
            losses_of: F. Row n of its losses must depend on row n of the deltas alone.
            start: deltas (N, C, H, W), anywhere.
            low: (N, C, H, W) of the box, at most 0; for images x it is -x.
            high: the other end, 1 - x for images.

        Raises:
            SetupError: held weights are not as many as domains.
        """
        deltas = into_ball(start.detach(), low, high, self.ball.norm, self.ball.eps).requires_grad_()
        losses = losses_of(deltas)
        weights = self._first(losses.detach())
        for _ in range(self.steps):
            (gradients,) = torch.autograd.grad((weights * losses).sum(), deltas)
            deltas = self._moved(deltas.detach(), gradients, low, high).requires_grad_()
            losses = losses_of(deltas)
            if self.weights == "learned":
                weights = next_weights(weights, losses.detach(), beta=self.beta, gamma=self.gamma)
        return Found(deltas=deltas.detach(), weights=weights)

    def _moved(self, deltas: Tensor, gradients: Tensor, low: Tensor, high: Tensor) -> Tensor:
        if self.normalise:
            lengths = gradients.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            gradients = gradients / lengths.clamp_min(1e-12)
        return into_ball(deltas - gradients / self.alpha, low, high, self.ball.norm, self.ball.eps)

    def _first(self, losses: Tensor) -> Tensor:
        """The weights before the first step, (N, K) as the losses are."""
        if isinstance(self.weights, str):
            return torch.full_like(losses, 1 / losses.shape[1])
        if len(self.weights) != losses.shape[1]:
            raise SetupError(f"weights: expected one for each of {losses.shape[1]} domains, got {len(self.weights)}")
        return torch.tensor(self.weights).to(losses).expand_as(losses)
