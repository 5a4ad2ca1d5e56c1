"""What an attack without gradients asks: whether an image is wrong and accepted, and how far from it it is."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training.attacks.adaptive.found import Found
from training.attacks.adaptive.loop import check_whole_levels, settled
from training.attacks.adaptive.target import Target, aim_at, views

__all__ = ["Answer", "Oracle"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What the target says of M images."""

    images: Tensor
    """(M, C, H, W), as the target saw them."""
    margins: Tensor
    """(M,), below 0 where the image fools."""
    suspicion: Tensor
    """(M,); inf where it is not finite."""
    won: Tensor
    """(M,) whether the image fools and is no more suspicious than the threshold."""


class Oracle:
    """A target with a threshold, asked about versions of known images."""

    def __init__(
        self,
        target: Target,
        images: Tensor,
        labels: Tensor,
        targets: Tensor | None,
        *,
        threshold: float,
        norm: Literal["linf", "l2"],
        eps: float,
        rounds: bool,
    ) -> None:
        """Takes the clean images (N, C, H, W), their classes (N,) and the classes to be led to; None for any wrong one.

        Raises:
            SetupError: images that are not of 8 bits where it rounds, or a target of the true class.
        """
        aim_at(labels, targets)
        if rounds:
            check_whole_levels(images)
        self.target, self.images, self.labels, self.targets = target, images, labels, targets
        self.threshold, self.norm, self.eps, self.rounds = threshold, norm, eps, rounds

    def ask(self, tried: Tensor, rows: Tensor) -> Answer:
        """The answer to images (M, C, H, W) in the ball, versions of those in rows (M,), rounded inside the ball."""
        seen = settled(tried, self.images[rows], self.norm, self.eps) if self.rounds else tried
        return self.ask_anywhere(seen, rows)

    def ask_anywhere(self, tried: Tensor, rows: Tensor) -> Answer:
        """The same as they are, for images that lie outside of the ball."""
        with torch.no_grad():
            logits, suspicion = views(self.target, tried)
            aim = aim_at(self.labels[rows], None if self.targets is None else self.targets[rows])
            margins = aim(logits)
        suspicion = torch.where(torch.isfinite(suspicion), suspicion, torch.inf)
        won = (margins < 0) & (suspicion <= self.threshold)
        return Answer(images=tried, margins=margins, suspicion=suspicion, won=won)

    def found(self, tried: Tensor, queries: Tensor) -> Found:
        """What was found in the end, one image in the ball for each, (N, C, H, W), after (N,) queries."""
        answer = self.ask(tried, torch.arange(len(tried), device=tried.device))
        return Found(
            images=answer.images,
            found=(answer.margins < 0) & torch.isfinite(answer.suspicion),
            scores=answer.suspicion,
            margins=answer.margins,
            steps=queries,
        )
