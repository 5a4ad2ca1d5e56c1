"""Auto-PGD: gradient ascent with momentum whose step size halves where the loss no longer rises."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks.checks import check_budget
from training.attacks.dlr import dlr, targeted_dlr
from training.attacks.objectives import cross_entropy, input_gradients
from training.attacks.protocol import undisturbed
from training.attacks.threat import named_norm

__all__ = ["Apgd", "TargetedApgd", "checkpoints"]

_MOMENTUM = 0.75
_RHO = 0.75
"""Share of the steps since the last checkpoint that must have raised the loss."""

_Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits (N, classes), true classes (N,) and targets (N,) to (N,); larger = closer to fooling."""

_LOSSES: Mapping[str, _Loss] = {
    "ce": lambda logits, labels, _: cross_entropy(logits, labels),
    "dlr": lambda logits, labels, _: dlr(logits, labels),
}


@dataclass(frozen=True, kw_only=True)
class Apgd:
    """Auto-PGD away from the true class; needs no step size.

    Of each image an iterate that fools is kept, else the one of highest loss. An image leaves as soon as it fools; one
    that the model gets wrong already comes back as it is.

    Source: Croce and Hein 2020 (arXiv 2003.01690). Starts are uniform in the ball, there on its sphere for L2.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float
    steps: int = 100
    restarts: int = 1
    loss: Literal["ce", "dlr"] = "ce"
    """dlr needs 3 classes or more."""

    def __post_init__(self) -> None:
        _check("apgd", self.norm, self.eps, steps=self.steps, restarts=self.restarts)
        if self.loss not in _LOSSES:
            raise SetupError(f"loss: expected one of {', '.join(_LOSSES)}, got {self.loss!r}")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1] and in the ball."""
        with undisturbed(model):
            search = _Search(model, images, labels, norm=self.norm, eps=self.eps, steps=self.steps)
            for _ in range(self.restarts):
                search.climb(_LOSSES[self.loss], labels, generator)
        return search.found


@dataclass(frozen=True, kw_only=True)
class TargetedApgd:
    """Auto-PGD towards one wrong class after the other, the likeliest first, on the targeted DLR loss.

    Any wrong class counts as fooling, not only the target.

    Source: Croce and Hein 2020 (arXiv 2003.01690), their APGD-T.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float
    steps: int = 100
    """For each target."""
    restarts: int = 1
    targets: int = 9
    """Wrong classes that are tried; all of them where there are fewer."""

    def __post_init__(self) -> None:
        _check("apgd", self.norm, self.eps, steps=self.steps, restarts=self.restarts, targets=self.targets)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1] and in the ball.

        Raises:
            SetupError: the model has fewer than 4 classes.
        """
        with undisturbed(model):
            search = _Search(model, images, labels, norm=self.norm, eps=self.eps, steps=self.steps)
            wrong = search.logits.scatter(1, labels[:, None], -torch.inf)
            targets = wrong.topk(min(self.targets, wrong.shape[1] - 1), dim=1).indices  # (N, targets)
            for _ in range(self.restarts):
                for target in targets.T:
                    search.climb(targeted_dlr, target, generator)
        return search.found


def checkpoints(steps: int) -> list[int]:
    """Steps after which the step size is looked at: at shares 0.22, 0.41, 0.57, ... of all, ever closer.

    Source: Croce and Hein 2020 (arXiv 2003.01690), section 3.
    """
    shares, gap = [0.22], 0.22
    while shares[-1] < 1:
        gap = max(gap - 0.03, 0.06)
        shares.append(shares[-1] + gap)
    # A thousand-millionth less, because 0.22 + 0.19 is a little more than 0.41.
    return sorted({math.ceil(share * steps - 1e-9) for share in shares if share <= 1})


def _check(attack: str, norm: str, eps: float, **counts: int) -> None:
    check_budget(attack, norm, eps, 0.0)
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{attack}: expected {name} of at least 1, got {value}")


class _Search:
    """What several climbs found: for each image one that fools, else the one of highest loss."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, *, norm: str, eps: float, steps: int) -> None:
        self.model, self.images, self.labels = model, images.detach(), labels
        self.norm, self.eps, self.steps = named_norm(norm), eps, steps
        with torch.no_grad():
            self.logits = model(self.images)
        self.found = self.images.clone()
        self.fools = self.logits.argmax(dim=1) != labels
        self.losses = torch.full((len(images),), -torch.inf, device=images.device)

    def climb(self, loss: _Loss, targets: Tensor, generator: torch.Generator) -> None:
        """One run from a random start, for the images that still resist."""
        # Drawn for all images, so that a start does not depend on which of the others resist.
        starts = (self.images + self.norm.random_start(self.images, self.eps, generator)).clamp(0, 1)
        climbers = _climbers(self.images, starts, self.labels, targets, self.eps)
        climbers.keep(~self.fools)
        self._look(climbers, loss)
        climbers.checked = climbers.best_losses
        checked_at, stops = 0, checkpoints(self.steps)
        for number in range(1, self.steps + 1):
            if not len(climbers.rows):
                return
            self._move(climbers, momentum=number > 1)
            self._look(climbers, loss)
            if number in stops:
                climbers.check(number - checked_at)
                checked_at = number
        self._take(climbers.rows, climbers.best, climbers.best_losses)

    def _move(self, climbers: "_Climbers", *, momentum: bool) -> None:
        place = climbers.place
        share = _MOMENTUM if momentum else 1.0
        ahead = self._inside(place + climbers.step * self.norm.steepest(climbers.gradients), climbers.clean)
        moved = place + share * (ahead - place) + (1 - share) * (place - climbers.before)
        climbers.before, climbers.place = place, self._inside(moved, climbers.clean)

    def _inside(self, places: Tensor, clean: Tensor) -> Tensor:
        return (clean + self.norm.project(places - clean, self.eps)).clamp(0, 1)

    def _look(self, climbers: "_Climbers", loss: _Loss) -> None:
        """Loss and gradient where the climbers stand; those that fool are taken and leave."""
        if not len(climbers.rows):
            return
        gradients, logits = input_gradients(
            self.model,
            climbers.place,
            climbers.labels,
            lambda logits, labels: loss(logits, labels, climbers.targets),
        )
        climbers.arrived(loss(logits, climbers.labels, climbers.targets), gradients)
        fools = logits.argmax(dim=1) != climbers.labels
        if fools.any():
            rows = climbers.rows[fools]
            self.fools[rows] = True
            self._take(rows, climbers.place[fools], torch.full_like(climbers.losses[fools], torch.inf))
            climbers.keep(~fools)

    def _take(self, rows: Tensor, images: Tensor, losses: Tensor) -> None:
        better = losses > self.losses[rows]
        self.found[rows[better]] = images[better]
        self.losses[rows[better]] = losses[better]


@dataclass(kw_only=True, eq=False)
class _Climbers:
    """The images that still resist in one climb; every tensor has a row for each, (M, ...)."""

    rows: Tensor
    """Their positions in the batch."""
    clean: Tensor
    labels: Tensor
    targets: Tensor
    place: Tensor
    before: Tensor
    gradients: Tensor
    losses: Tensor
    best: Tensor
    best_gradients: Tensor
    best_losses: Tensor
    step: Tensor
    """(M, 1, 1, 1) step sizes."""
    rises: Tensor
    """Steps since the last checkpoint that raised the loss."""
    checked: Tensor
    """Best losses at the last checkpoint."""
    halved: Tensor
    """Whether that checkpoint halved the step."""

    def keep(self, which: Tensor) -> None:
        """Only those of a mask (M,)."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[which])

    def arrived(self, losses: Tensor, gradients: Tensor) -> None:
        """Loss (M,) and gradients (M, C, H, W) of the place."""
        self.rises = self.rises + (losses > self.losses)
        self.losses, self.gradients = losses, gradients
        better = losses > self.best_losses
        self.best_losses = torch.where(better, losses, self.best_losses)
        self.best = torch.where(_wide(better), self.place, self.best)
        self.best_gradients = torch.where(_wide(better), gradients, self.best_gradients)

    def check(self, steps: int) -> None:
        """At a checkpoint `steps` after the last: who gets on badly goes back to its best with half the step."""
        few = self.rises < _RHO * steps
        stuck = ~self.halved & (self.best_losses <= self.checked)
        self.halved = few | stuck
        self.step = torch.where(_wide(self.halved), self.step / 2, self.step)
        self.place = torch.where(_wide(self.halved), self.best, self.place)
        self.gradients = torch.where(_wide(self.halved), self.best_gradients, self.gradients)
        self.losses = torch.where(self.halved, self.best_losses, self.losses)
        self.checked, self.rises = self.best_losses, torch.zeros_like(self.rises)


def _climbers(images: Tensor, starts: Tensor, labels: Tensor, targets: Tensor, eps: float) -> _Climbers:
    count, device = len(images), images.device
    never = torch.full((count,), -torch.inf, device=device)
    return _Climbers(
        rows=torch.arange(count, device=device),
        clean=images,
        labels=labels,
        targets=targets,
        place=starts,
        before=starts,
        gradients=torch.zeros_like(starts),
        losses=-never,  # so that arriving at the start is no rise
        best=starts,
        best_gradients=torch.zeros_like(starts),
        best_losses=never,
        step=torch.full((count, 1, 1, 1), 2 * eps, device=device),
        rises=torch.zeros(count, dtype=torch.long, device=device),
        checked=never,
        halved=torch.zeros(count, dtype=torch.bool, device=device),
    )


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
