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

__all__ = ["ROLES", "RoleAttack", "TupleImages", "TupleLoss", "toward_hardness"]

ROLES = ("anchor", "positive", "negative")
TupleImages = tuple[Tensor, Tensor, Tensor]
"""Anchors, positives and negatives, (T, C, H, W) each, row by row one tuple."""
TupleLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of embeddings of unit length (T, D) of the three: (T,)."""


@dataclass(frozen=True, kw_only=True)
class RoleAttack:
    """PGD that raises the loss of each tuple."""

    norm: Literal["linf", "l2"]
    eps: float
    step: float = 0.0
    """0 takes 2.5 eps / steps."""
    steps: int = 8
    role: Literal["anchor", "positive", "negative", "all"] = "anchor"
    loss: TupleLoss

    def __call__(self, model: Classifier, images: TupleImages, generator: torch.Generator) -> TupleImages:
        """The tuples with the images of the role attacked, in [0, 1] and in the ball; the others as they came."""
        moving = [name for name in ROLES if self.role in (name, "all")]
        fixed = self._fixed(model, images, moving)

        def objective(embeddings: Tensor, _labels: Tensor) -> Tensor:
            parts = dict(zip(moving, embeddings.chunk(len(moving)), strict=True))
            return self.loss(*({**fixed, **parts}[name] for name in ROLES))

        together = torch.cat([part for name, part in zip(ROLES, images, strict=True) if name in moving])
        attack = Pgd(norm=self.norm, eps=self.eps, step=self.step, steps=self.steps, loss=objective)
        labels = torch.zeros(len(together), dtype=torch.long, device=together.device)  # the objective asks for none
        attacked = attack(_Embedding(model), together, labels, generator)
        found = dict(zip(ROLES, images, strict=True)) | dict(zip(moving, attacked.chunk(len(moving)), strict=True))
        return found["anchor"], found["positive"], found["negative"]

    @staticmethod
    def _fixed(model: Classifier, images: TupleImages, moving: list[str]) -> dict[str, Tensor]:
        with undisturbed(model), torch.no_grad():
            return {name: model.embedding(part) for name, part in zip(ROLES, images, strict=True) if name not in moving}


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
