"""Robust metric learning: tuples mined on clean embeddings, then perturbed, then compared.

    d(u, v)      = ||u - v||                               embeddings of unit length
    H            = d(a, p) - d(a, n)                       hardness, in [-2, 2]
    triplet      = max(0, H + margin)
    contrastive  = d(a, p)^2 + max(0, margin - d(a, n))^2
    term         = weight * mean of ((1 - clean_share) L(perturbed tuple) + clean_share L(clean tuple)
                                     + ics_weight max(0, d(a, a') - d(a, p)))

The attack is training.attacks.roles: on one role, on all, or (hardness) on all until H reaches
H_D = -gamma min(u, L_{t-1}) / u, which is far below 0 while the loss L of the step before is large: a weak adversary
early, a strong one late.

Source: implemented from the abstract's formulation of Panum et al. 2021 (arXiv 2102.07265); hardness and ics_weight of
Zhou and Patel 2022 (RobDML, arXiv 2203.01439). We differ in taking each image of the batch as an anchor of
`tuples` tuples, and in perturbing an image once for all tuples in which it has a role.
"""

from collections.abc import Mapping, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from training.attacks.protocol import undisturbed
from training.attacks.roles import RoleAttack, TupleLoss, toward_hardness
from training.losses.protocol import TrainingStep, Views
from training.methods_metric import MetricConfig
from training.models import unit_length
from training.tuples import ROLES, Tuples, euclidean, mine

__all__ = ["Metric", "contrastive", "destination", "hardness", "triplet"]


def hardness(anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """H (T,) of embeddings of unit length (T, D)."""
    return euclidean(anchors, positives) - euclidean(anchors, negatives)


def triplet(margin: float) -> TupleLoss:
    """max(0, H + margin) of each tuple."""
    return lambda anchors, positives, negatives: (hardness(anchors, positives, negatives) + margin).clamp_min(0)


def contrastive(margin: float) -> TupleLoss:
    """d(a, p)^2 + max(0, margin - d(a, n))^2 of each tuple."""

    def loss(anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        apart = (margin - euclidean(anchors, negatives)).clamp_min(0).square()
        return (anchors - positives).square().sum(dim=1) + apart

    return loss


def destination(loss: float, gamma: float, bound: float) -> float:
    """H_D of a loss of the step before, from -gamma (at `bound` and above) to 0 (at no loss)."""
    return -gamma * min(bound, loss) / bound


class Metric:
    """The term for a training step: mines and attacks in eval mode, has what came of it embedded in train mode.

    Attributes:
        last: the loss of the perturbed tuples in the step before, which the next attack of `hardness` goes by; None
            before the first. Where a batch has two kinds of images, it is that of the generated ones.
        tuples: of each training step under way, by step; one batch may have two.
    """

    def __init__(self, config: MetricConfig, norm: Literal["linf", "l2"], eps: float) -> None:
        """Takes the recipe's section, and the threat model."""
        self.last: float | None = None
        self.tuples: WeakKeyDictionary[TrainingStep, Tuples] = WeakKeyDictionary()
        self._config = config
        self._norm: Literal["linf", "l2"] = norm
        self._eps = eps
        losses = {"triplet": triplet, "contrastive": contrastive}
        self._loss = losses[config.loss](config.own_margin)

    def images(self, step: TrainingStep) -> Sequence[Tensor]:
        """The clean images, then those of the perturbed roles; nothing but clean ones where no tuple was found."""
        config = self._config
        with undisturbed(step.model), torch.no_grad():
            embeddings = step.model.embedding(step.clean)
        tuples = mine(embeddings, step.labels, config.mining, config.own_margin, step.generator, count=config.tuples)
        self.tuples[step] = tuples
        if config.attack == "none" or not len(tuples):
            return (step.clean,)
        attacked = self._attack(step.epoch)(step.model, step.clean, tuples, step.generator)
        return (step.clean, *attacked.values())

    def __call__(self, step: TrainingStep, attacked: Views, others: Sequence[Views]) -> Tensor:
        """See LossTerm."""
        tuples = self.tuples[step]
        if not len(tuples):
            return 0 * others[0].embeddings.sum()  # so that there is something to descend on
        config = self._config
        clean = unit_length(others[0].embeddings)
        parts = {name: clean[tuples.of(name)] for name in ROLES}
        each = self._loss(*parts.values())
        if len(others) > 1:
            moved = zip(self._moving, others[1:], strict=True)
            perturbed = parts | {name: unit_length(views.embeddings)[tuples.used(name)[1]] for name, views in moved}
            found = self._loss(*perturbed.values())
            self.last = float(found.detach().mean())
            each = (1 - config.clean_share) * found + config.clean_share * each
            if config.ics_weight:
                drift = euclidean(parts["anchor"], perturbed["anchor"])
                limit = euclidean(parts["anchor"], parts["positive"])
                each = each + config.ics_weight * (drift - limit).clamp_min(0)
        return config.weight * each.mean()

    def state(self) -> dict[str, float | None]:
        """What the next step depends on, for a checkpoint."""
        return {"last": self.last}

    def load_state(self, state: Mapping[str, float | None]) -> None:
        """Goes back to where state() was taken."""
        self.last = state["last"]

    @property
    def _moving(self) -> list[str]:
        return [name for name in ROLES if self._config.attack in (name, "all", "hardness")]

    def _attack(self, epoch: int) -> RoleAttack:
        config = self._config
        share = min(1.0, (epoch + 1) / (config.warmup_epochs + 1))
        role, loss = config.attack, self._loss
        if role == "hardness":
            before = config.loss_bound if self.last is None else self.last
            loss = toward_hardness(hardness, destination(before, config.gamma, config.loss_bound))
            role = "all"
        assert role != "none"
        eps, step = share * self._eps, share * config.step
        return RoleAttack(norm=self._norm, eps=eps, step=step, steps=config.steps, role=role, loss=loss)
