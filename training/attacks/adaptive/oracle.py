"""What an attack without gradients asks: whether an image is wrong and accepted, and how far from it it is."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training.attacks.adaptive.found import Found
from training.attacks.adaptive.loop import check_whole_levels, settled
from training.attacks.adaptive.target import Target, aim_at, views
from training.attacks.rounding import from_8_bit, nearest_8_bit

__all__ = ["Answer", "Oracle", "found_by"]


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
        return self._answer(settled(tried, self.images[rows], self.norm, self.eps) if self.rounds else tried, rows)

    def ask_anywhere(self, tried: Tensor, rows: Tensor) -> Answer:
        """The same of images that may lie outside of the ball, rounded to the nearest levels."""
        return self._answer(self.seen(tried), rows)

    def seen(self, tried: Tensor) -> Tensor:
        """Images (M, C, H, W) as `ask_anywhere` rounds them."""
        return from_8_bit(nearest_8_bit(tried)).to(tried) if self.rounds else tried

    def _answer(self, tried: Tensor, rows: Tensor) -> Answer:
        with torch.no_grad():
            logits, suspicion = views(self.target, tried)
            aim = aim_at(self.labels[rows], None if self.targets is None else self.targets[rows])
            margins = aim(logits)
        suspicion = torch.where(torch.isfinite(suspicion), suspicion, torch.inf)
        won = (margins < 0) & (suspicion <= self.threshold)
        return Answer(images=tried, margins=margins, suspicion=suspicion, won=won)


def found_by(answer: Answer, queries: Tensor) -> Found:
    """The answer to one image in the ball for each, (N, C, H, W), as the result of (N,) queries."""
    return Found(
        images=answer.images,
        found=(answer.margins < 0) & torch.isfinite(answer.suspicion),
        scores=answer.suspicion,
        margins=answer.margins,
        steps=queries,
    )
