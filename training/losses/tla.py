"""Triplet loss adversarial training (TLA).

    D(u, v)       = 1 - |cos(u, v)|
    trip(a, p, n) = mean max(0, D(a, p) - D(a, n) + margin) + lambda2 * mean(a^2 + p^2 + n^2)
    term          = lambda1 * sum of trip over the kinds of positives

The anchor is the attacked image, positives and negative are clean; TLA-SA switches anchor and positive, TLA-RN draws
the negative instead of mining it. The absolute value is meant: antiparallel embeddings count as close.

Source: Mao et al. 2019 (arXiv 1909.00900), from its equations. We differ in mining: same-class images are
masked with -inf (the released code multiplies by 0), and noise on the own image is scaled to [0, 1]. All images of a
step pass together (see LossTerm), the released code embeds them one kind after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from service.errors import SetupError
from training.attacks.threat import uniform
from training.losses.protocol import TrainingStep, Views
from training.models import Classifier, unit_length
from training.shard import count_of_all, own_of_all

__all__ = ["Tla", "distances", "hardest_negatives", "random_negatives", "triplet_term"]


def distances(left: Tensor, right: Tensor) -> Tensor:
    """D(u, v) of embeddings (N, D) row by row, (N,) in [0, 1]."""
    return 1 - (unit_length(left) * unit_length(right)).sum(dim=1).abs()


def triplet_term(anchors: Tensor, positives: Tensor, negatives: Tensor, *, margin: float, norm_weight: float) -> Tensor:
    """trip(a, p, n) of un-normalised embeddings (N, D): a scalar."""
    gap = distances(anchors, positives) - distances(anchors, negatives) + margin
    squares = anchors.square() + positives.square() + negatives.square()  # (N, D)
    return F.relu(gap).mean() + norm_weight * squares.mean()


def hardest_negatives(
    anchors: Tensor,
    labels: Tensor,
    pool: Tensor,
    pool_labels: Tensor,
    *,
    mine_by: Literal["cosine", "distance"] = "cosine",
) -> Tensor:
    """For each anchor the position in the pool of the most similar image of another class.

    Args:
        anchors: (N, D) embeddings of attacked images.
        labels: (N,).
        pool: (M, D) embeddings of clean images.
        pool_labels: (M,).
        mine_by: cosine takes the largest signed cosine, distance the smallest D.

    Returns:
        (N,) positions in the pool.

    Raises:
        SetupError: an anchor finds no other class in the pool.
    """
    with torch.autocast(anchors.device.type, enabled=False):  # bf16 has four steps between cosines 0.98 and 1
        cosines = unit_length(anchors) @ unit_length(pool).T  # (N, M)
    similar = cosines.abs() if mine_by == "distance" else cosines
    return similar.masked_fill(_same_class(labels, pool_labels), -torch.inf).argmax(dim=1)


def random_negatives(labels: Tensor, pool_labels: Tensor, generator: torch.Generator) -> Tensor:
    """For each label (N,) a random position in the pool (M,) of another class.

    Raises:
        SetupError: a label finds no other class in the pool.
    """
    same = _same_class(labels, pool_labels)
    draws = torch.rand((count_of_all(len(labels), generator), len(pool_labels)), generator=generator)
    draws = own_of_all(draws, generator).to(labels.device)
    return draws.masked_fill(same, -torch.inf).argmax(dim=1)


def _same_class(labels: Tensor, pool_labels: Tensor) -> Tensor:
    """(N, M) where label and pool agree."""
    same = labels[:, None] == pool_labels[None, :]
    if bool(same.all(dim=1).any()):
        raise SetupError(
            f"tla.pool: expected images of another class among {len(pool_labels)}, got one class; enlarge the pool"
        )
    return same


@dataclass(frozen=True, kw_only=True)
class Tla:
    """The term for a training step: mines in eval mode, has what it mined embedded in train mode."""

    weight: float
    """lambda1."""
    margin: float
    norm_weight: float
    """lambda2."""
    pool: int
    kinds: tuple[Literal["own", "other"], ...]
    mine_by: Literal["cosine", "distance", "random"]
    noise: float
    """The own image is embedded with uniform noise of this size; 0 embeds it as it is."""
    switched: bool = False
    """TLA-SA."""

    def images(self, step: TrainingStep) -> Sequence[Tensor]:
        """The negatives, then the positives of each kind."""
        positives = [self._own(step) if kind == "own" else self._other(step) for kind in self.kinds]
        return [self._negatives(step), *positives]

    def __call__(self, step: TrainingStep, attacked: Views, others: Sequence[Views]) -> Tensor:
        """lambda1 times the sum over kinds; both kinds share the negative."""
        negatives, *positives = (views.embeddings for views in others)
        terms = []
        for positive in positives:
            anchor, near = (positive, attacked.embeddings) if self.switched else (attacked.embeddings, positive)
            terms.append(triplet_term(anchor, near, negatives, margin=self.margin, norm_weight=self.norm_weight))
        return self.weight * torch.stack(terms).sum()

    def _own(self, step: TrainingStep) -> Tensor:
        if self.noise == 0:
            return step.clean
        return (step.clean + self.noise * uniform(step.clean, step.generator)).clamp(0, 1)

    def _other(self, step: TrainingStep) -> Tensor:
        return step.source.take(step.source.draw_other_of_class(step.positions, step.generator))

    def _negatives(self, step: TrainingStep) -> Tensor:
        """(N, C, H, W) a clean image of another class for each anchor: the hardest of a random pool, or any of it."""
        positions = step.source.draw(self.pool, step.generator)
        pool, labels = step.source.take(positions), step.source.labels[positions.to(step.source.device)]
        if self.mine_by == "random":
            return pool[random_negatives(step.labels, labels, step.generator)]
        anchors = step.clean if self.switched else step.attacked
        embeddings = _eval_embeddings(step.model, torch.cat([anchors, pool]))
        count = len(anchors)
        chosen = hardest_negatives(embeddings[:count], step.labels, embeddings[count:], labels, mine_by=self.mine_by)
        return pool[chosen]


def _eval_embeddings(model: Classifier, images: Tensor) -> Tensor:
    """(N, D) in eval mode and without gradient; the model returns to train mode."""
    model.eval()
    try:
        with torch.no_grad():
            return model.embed(images).float()
    finally:
        model.train()
