"""Attacks on the images of tuples (anchor, positive, negative) that somebody has chosen, and that stay chosen.

    delta = argmax over ||delta|| <= eps of L(h(a + delta), h(p), h(n))        for the anchor; so for the other roles

L is the loss of one tuple. Only the named role moves: the others' embeddings are computed once, in eval mode, without
gradient. Whoever mined anew on attacked embeddings would let the attack win by changing what is compared.

Source: implemented from the abstract's formulation of Panum et al. 2021 (arXiv 2102.07265); `toward_hardness` is of
Zhou and Patel 2022 (RobDML, arXiv 2203.01439).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.attacks.pgd import Pgd
from training.attacks.protocol import undisturbed
from training.models import Classifier
from training.tuples import ROLES, Tuples

__all__ = ["RoleAttack", "TupleLoss", "toward_hardness"]

TupleLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of embeddings of unit length (T, D) of anchors, positives and negatives: (T,)."""


@dataclass(frozen=True, kw_only=True)
class RoleAttack:
    """PGD that raises the loss of tuples; an image that has one role in several raises the sum of their losses."""

    norm: Literal["linf", "l2"]
    eps: float
    step: float = 0.0
    """0 takes 2.5 eps / steps."""
    steps: int = 8
    role: Literal["anchor", "positive", "negative", "all"] = "anchor"
    loss: TupleLoss

    def __call__(
        self, model: Classifier, images: Tensor, tuples: Tuples, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Of each role that moves, the images of `tuples.used(role)` attacked, (U, C, H, W) in [0, 1] and in the ball.

        Args:
            model: left as found.
            images: (N, C, H, W), those of the batch.
            tuples: at least one, and not changed.
            generator: of the random start.
        """
        used = {name: tuples.used(name) for name in ROLES}
        moving = [name for name in ROLES if self.role in (name, "all")]
        with undisturbed(model), torch.no_grad():
            fixed = {
                name: model.embedding(images[places])[rows]
                for name, (places, rows) in used.items()
                if name not in moving
            }
        sizes = [len(used[name][0]) for name in moving]

        def objective(embeddings: Tensor, _labels: Tensor) -> Tensor:
            parts = {
                name: part[used[name][1]] for name, part in zip(moving, torch.split(embeddings, sizes), strict=True)
            } | fixed
            return self.loss(*(parts[name] for name in ROLES))

        together = torch.cat([images[used[name][0]] for name in moving])
        attack = Pgd(norm=self.norm, eps=self.eps, step=self.step, steps=self.steps, loss=objective)
        labels = torch.zeros(len(together), dtype=torch.long, device=together.device)  # the objective asks for none
        attacked = attack(_Embedding(model), together, labels, generator)
        return dict(zip(moving, torch.split(attacked, sizes), strict=True))


class _Embedding(nn.Module):
    """The network as images to embeddings of unit length, which is what is attacked."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.embedding(images)


def toward_hardness(hardness: TupleLoss, destination: float) -> TupleLoss:
    """-max(0, H_D - H)^2: to raise it raises the hardness H of a tuple, and stops where that reaches H_D.

    Args:
        hardness: of a tuple.
        destination: H_D.
    """

    def loss(anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        return -(destination - hardness(anchors, positives, negatives)).clamp_min(0).square()

    return loss
