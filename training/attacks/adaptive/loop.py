"""The one loop of all adaptive attacks that descend: look, keep the best, step, go back into the ball."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from service.errors import SetupError
from training.attacks.adaptive.found import Traced, wide
from training.attacks.adaptive.look import Look
from training.attacks.adaptive.rules import Rule
from training.attacks.adaptive.target import Aim, Target, aim_at, held
from training.attacks.checks import check_budget
from training.attacks.rounding import from_8_bit, levels, to_8_bit
from training.attacks.threat import named_norm, uniform
from training.checks import at_least

__all__ = ["AdaptivePgd", "Loop", "check_whole_levels", "settled"]


@dataclass(frozen=True, kw_only=True)
class Loop:
    """x' <- clip_[0,1](x + proj(x' - step * steepest(d) - x)), d from a rule; looks are at x' rounded to 8 bits.

    Of all iterates that fool, the least suspicious one is kept, as it was looked at.

    Source: the loop of Bryniarski et al. 2021 (arXiv 2106.15023). Differently from their code the last iterate is
        looked at too, every image is on its own, L2 projects to an L2 ball, and there are restarts.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float
    step: float = 0.0
    """0 takes eps / 10."""
    steps: int = 100
    restarts: int = 1
    """The first from the clean images, the others from random points of the ball."""
    kappa: float = 0.05
    """In logits: how far the margin must be below 0 before a rule takes the label for settled."""
    rounds: bool = True
    """Whether the target sees 8-bit images, the gradient passing through the rounding unchanged."""

    def __post_init__(self) -> None:
        check_budget("adaptive", self.norm, self.eps, self.step)
        at_least(1, "steps", self.steps)
        at_least(1, "restarts", self.restarts)
        at_least(0, "kappa", self.kappa)
        if self.rounds and self.norm == "linf" and not levels(self.eps):
            raise SetupError(
                f"eps: expected at least 1/255 for 8-bit images, got {self.eps:g}; raise it or set rounds = False"
            )

    def run(
        self,
        rule: Rule,
        target: Target,
        images: Tensor,
        aim: Aim,
        generator: torch.Generator,
        *,
        guide: Target | None = None,
        starts: Tensor | None = None,
    ) -> Traced:
        """Attacks each image by itself.

        Args:
            rule: where to go.
            target: what is attacked and whose suspicion judges.
            images: (N, C, H, W) in [0, 1]; whole multiples of 1/255 where the loop rounds.
            aim: the margins.
            generator: of every random number.
            guide: whose suspicion the rule descends; None for the target's.
            starts: (N, C, H, W) where the first run begins, put into the ball; None for the clean images.

        Raises:
            SetupError: images that are not of 8 bits, or a target without gradients or of wrong shapes.
        """
        images = images.detach()
        if self.rounds:
            check_whole_levels(images)
        best = _Best(images)
        with held(target), held(target if guide is None else guide):
            for restart in range(self.restarts):
                first = images if starts is None else starts.detach()
                place = first if restart == 0 else self._random_start(images, generator)
                place = self._inside(place, images)
                for step in range(self.steps + 1):
                    seen = settled(place, images, self.norm, self.eps) if self.rounds else place
                    look = Look.at(seen, target=target, aim=aim, guide=guide, kappa=self.kappa, step=step)
                    best.update(look)
                    if step < self.steps:  # the last look is only to judge
                        place = self._moved(place, images, rule.uphill(look), generator)
                    del look  # its graph must not outlive it, or two would fill the memory
        return best.traced(self.restarts)

    def _random_start(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images + named_norm(self.norm).random_start(images, self.eps, generator)

    def _inside(self, places: Tensor, images: Tensor) -> Tensor:
        # Ball first, box second: the box lies around every clean image and cannot lead out of the ball.
        return (images + named_norm(self.norm).project(places - images, self.eps)).clamp(0, 1)

    def _moved(self, places: Tensor, images: Tensor, uphill: Tensor, generator: torch.Generator) -> Tensor:
        # Drawn for all images, so that the numbers of one do not depend on which of the others need them.
        stray = uniform(images, generator)
        lost = uphill.flatten(1).abs().amax(dim=1) == 0
        directions = named_norm(self.norm).steepest(torch.where(wide(lost), stray, uphill))
        return self._inside(places - (self.step or self.eps / 10) * directions, images)


@dataclass(frozen=True, kw_only=True)
class AdaptivePgd:
    """One rule in the loop; with a guide the rule descends that target's suspicion, and the attacked one judges."""

    loop: Loop
    rule: Rule
    guide: Target | None = None

    def __call__(
        self,
        target: Target,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        *,
        targets: Tensor | None = None,
    ) -> Traced:
        """See AdaptiveAttack."""
        return self.loop.run(self.rule, target, images, aim_at(labels, targets), generator, guide=self.guide)


def settled(places: Tensor, images: Tensor, norm: Literal["linf", "l2"], eps: float) -> Tensor:
    """Places as `to_8_bit` rounds them inside the ball around clean images, as floats again; all (N, C, H, W)."""
    return from_8_bit(to_8_bit(places, images, norm, eps)).to(images)


def check_whole_levels(images: Tensor) -> None:
    """Refuses clean images that are not of 8 bits: their rounding alone would move them.

    Raises:
        SetupError: a value is no whole multiple of 1/255.
    """
    off = (images * 255 - (images * 255).round()).abs()
    if (off > 1e-3).any():
        raise SetupError(
            f"images: expected whole multiples of 1/255, got one {float(off.max()):.3g} of a level off; round the "
            "clean images to 8 bits first or set rounds = False"
        )


class _Best:
    """The best iterate of each image so far, and the suspicion of all that fooled."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()
        self.trace: list[Tensor] = []
        self.steps = torch.zeros(len(images), dtype=torch.long, device=images.device)

    def update(self, look: Look) -> None:
        margins, suspicion = look.margins.detach(), look.suspicion.detach()
        suspicion = torch.where(torch.isfinite(suspicion), suspicion, torch.inf)
        if not self.trace:
            self.scores, self.margins = torch.full_like(suspicion, torch.inf), torch.full_like(margins, torch.inf)
            self.found = torch.zeros_like(margins, dtype=torch.bool)
        quiet = torch.where(margins < 0, suspicion, torch.inf)
        self.trace.append(quiet)
        fools = torch.isfinite(quiet)
        best_of_fooling = fools & (~self.found | (quiet < self.scores))
        wins = best_of_fooling | (~self.found & ~fools & (margins < self.margins))
        self.images = torch.where(wide(wins), look.images.detach(), self.images)
        self.scores = torch.where(wins, suspicion, self.scores)
        self.margins = torch.where(wins, margins, self.margins)
        self.steps = torch.where(wins, look.step, self.steps)
        self.found = self.found | fools

    def traced(self, restarts: int) -> Traced:
        looks = len(self.trace) // restarts
        trace = torch.stack(self.trace).view(restarts, looks, -1)  # (R, S + 1, N)
        return Traced(
            images=self.images,
            found=self.found,
            scores=self.scores,
            margins=self.margins,
            steps=self.steps,
            trace=trace,
        )
