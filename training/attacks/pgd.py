"""Projected gradient descent, for every norm, objective and number of restarts."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.attacks.checks import check_budget
from training.attacks.objectives import Objective, divergence_from, input_gradients, named_objective
from training.attacks.protocol import undisturbed
from training.attacks.threat import named_norm

__all__ = ["Pgd"]


@dataclass(frozen=True, kw_only=True)
class Pgd:
    """x' <- clip_[0,1](proj(x' + step * steepest(grad L))).

    With loss `margin` this is `margin_pgd`, the "C&W" of many papers; it is not the L2 attack `cw_l2`.

    Source: Madry et al. 2018 (arXiv 1706.06083). With restarts we keep, for each image, an iterate that fools
    (of those, and else of all, the one of highest loss), not the last.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float
    step: float = 0.0
    """0 takes 2.5 eps / steps."""
    steps: int = 10
    restarts: int = 1
    loss: Literal["ce", "margin", "away", "toward", "kl"] | Objective = "ce"
    """One of OBJECTIVES, (for TRADES) divergence from the clean answer, or any other objective of the output."""
    random_start: bool = True
    keep_worst: bool = False
    """Also within a single run keep the worst iterate; one more forward pass. Restarts always do."""

    def __post_init__(self) -> None:
        check_budget("pgd", self.norm, self.eps, self.step)
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"pgd: expected {name} of at least 1, got {getattr(self, name)}")
        if isinstance(self.loss, str) and self.loss != "kl":
            named_objective(self.loss)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1] and in the ball."""
        return self.begun_at(None, model, images, labels, generator)

    def begun_at(
        self, start: Tensor | None, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """As a call, from these images (N, C, H, W) put into the ball; from the usual start for None."""
        keeps = self.keep_worst or self.restarts > 1
        with undisturbed(model):
            objective = self._objective(model, images)
            worst = _Worst(images) if keeps else None
            for _ in range(self.restarts):
                attacked = self._run(start, model, images, labels, generator, objective, worst)
        return attacked if worst is None else worst.images

    def _objective(self, model: nn.Module, images: Tensor) -> Objective:
        if not isinstance(self.loss, str):
            return self.loss
        return divergence_from(model, images) if self.loss == "kl" else named_objective(self.loss)

    def _run(
        self,
        start: Tensor | None,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        objective: Objective,
        worst: "_Worst | None",
    ) -> Tensor:
        norm = named_norm(self.norm)
        step = self.step or 2.5 * self.eps / self.steps
        attacked = images.detach()
        if start is not None:
            attacked = (images + norm.project(start - images, self.eps)).clamp(0, 1)
        elif self.random_start:
            attacked = (attacked + norm.random_start(images, self.eps, generator)).clamp(0, 1)
        for _ in range(self.steps):
            gradients, logits = input_gradients(model, attacked, labels, objective)
            if worst is not None:
                worst.update(attacked, logits, labels, objective)
            moved = attacked + step * norm.steepest(gradients)
            attacked = (images + norm.project(moved - images, self.eps)).clamp(0, 1)
        if worst is not None:
            with torch.no_grad():
                worst.update(attacked, model(attacked), labels, objective)
        return attacked


class _Worst:
    """The worst iterate seen for each image: one that fools before one that does not, then by loss."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.detach().clone()
        self.fools = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.losses = torch.full((len(images),), -torch.inf, device=images.device)

    def update(self, attacked: Tensor, logits: Tensor, labels: Tensor, objective: Objective) -> None:
        losses = objective(logits, labels)
        fools = logits.argmax(dim=1) != labels
        worse = (fools & ~self.fools) | ((fools == self.fools) & (losses > self.losses))
        self.images[worse] = attacked[worse]
        self.fools |= fools
        self.losses = torch.where(worse, losses, self.losses)
