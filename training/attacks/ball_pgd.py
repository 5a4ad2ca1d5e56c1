"""Projected gradient ascent in any of the four norms, with exact projections."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.attacks.ball import Ball
from training.attacks.objectives import Objective, input_gradients, named_objective
from training.attacks.protocol import undisturbed

__all__ = ["BallPgd", "SteepestOfBalls"]


@dataclass(frozen=True, kw_only=True)
class BallPgd:
    """x' <- the nearest image of the ball to x' + step * direction(grad L), from a random start.

    For linf this is `Pgd`; for l2 too, but that `Pgd` clips after projecting.
    """

    ball: Ball
    steps: int = 10
    step: float = 0.0
    """Length of a step in the norm; 0 takes 2.5 eps / steps, and for l0 1, the mean change of a value."""
    spread: float = 0.02
    """Share of the values that an l1 step moves."""
    loss: Literal["ce", "margin"] = "ce"

    def __post_init__(self) -> None:
        _check(self.steps, self.step, self.spread)
        named_objective(self.loss)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1] and in the ball."""
        clean, objective = images.detach(), named_objective(self.loss)
        with undisturbed(model):
            attacked = self.ball.start(clean, generator)
            for _ in range(self.steps):
                gradients, _ = input_gradients(model, attacked, labels, objective)
                attacked = _moved(
                    self.ball, attacked, clean, gradients, _step(self.ball, self.step, self.steps), self.spread
                )
        return attacked


@dataclass(frozen=True, kw_only=True)
class SteepestOfBalls:
    """One attack in the union of several balls: of each image, at each step, the ball whose step raises the loss most.

    Starts at the clean images; the iterate of the highest loss is kept.

    Source: the multi steepest descent (MSD) of Maini, Wong and Kolter 2020 (arXiv 1909.04068). Written from its idea:
    step sizes, the spread of l1 steps and exact projections are ours.
    """

    balls: tuple[Ball, ...]
    steps: int = 10
    spread: float = 0.02
    """Share of the values that an l1 step moves."""

    def __post_init__(self) -> None:
        if not self.balls:
            raise ValueError("msd: expected at least one ball, got none")
        _check(self.steps, 0.0, self.spread)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1], each in one of the balls; draws nothing."""
        objective = named_objective("ce")
        clean = attacked = best = images.detach()
        highest = torch.full((len(images),), -torch.inf, device=images.device)
        with undisturbed(model):
            for _ in range(self.steps):
                gradients, _ = input_gradients(model, attacked, labels, objective)
                tried = [
                    _moved(ball, attacked, clean, gradients, _step(ball, 0.0, self.steps), self.spread)
                    for ball in self.balls
                ]
                attacked, losses = worst_of(model, tried, labels, objective)
                best = torch.where((losses > highest).view(-1, 1, 1, 1), attacked, best)
                highest = torch.maximum(highest, losses)
        return best


def worst_of(model: nn.Module, tried: list[Tensor], labels: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Of each image the version of the highest objective, (N, C, H, W), and that objective (N,).

    Args:
        model: in eval mode.
        tried: versions of the images, each (N, C, H, W).
        labels: (N,) true classes.
        objective: what to choose by.
    """
    with torch.no_grad():
        losses = torch.stack([objective(model(images), labels) for images in tried])  # (versions, N)
    highest, which = losses.max(dim=0)
    return torch.stack(tried)[which, torch.arange(len(labels), device=which.device)], highest


def _moved(ball: Ball, places: Tensor, clean: Tensor, gradients: Tensor, step: float, spread: float) -> Tensor:
    return ball.nearest(places + step * ball.direction(gradients, places, spread), clean)


def _step(ball: Ball, step: float, steps: int) -> float:
    return step or (1.0 if ball.norm == "l0" else 2.5 * ball.eps / steps)


def _check(steps: int, step: float, spread: float) -> None:
    if steps < 1:
        raise ValueError(f"ball_pgd: expected steps of at least 1, got {steps}")
    if not step >= 0:
        raise ValueError(f"ball_pgd: expected a step of at least 0, got {step}")
    if not 0 < spread <= 1:
        raise ValueError(f"ball_pgd: expected a spread above 0, at most 1, got {spread}")
