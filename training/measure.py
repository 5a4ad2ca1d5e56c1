"""Accuracy on clean and on attacked images while a run goes on."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.attacks import Attack, FirstFooling, Pgd
from training.attacks.ball_pgd import BallPgd
from training.config import Recipe
from training.data.batches import ImageSource
from training.domain_attacks import domain_balls
from training.models import Classifier

__all__ = ["Accuracies", "measure", "measure_epoch", "measuring_attack"]

BATCH = 256
STEPS = 10
TRAINING_IMAGES = 512


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """Shares of images classified correctly."""

    clean: float
    attacked: float


def measuring_attack(recipe: Recipe) -> Attack:
    """PGD with the recipe's budget, or with each of several, whatever attack trains.

    Enough to choose an epoch, not to publish.
    """
    if balls := domain_balls(recipe):
        return FirstFooling(attacks=tuple(BallPgd(ball=ball, steps=STEPS) for ball in balls))
    return Pgd(norm=recipe.attack.norm, eps=recipe.attack.eps, steps=STEPS)


def measure_epoch(
    model: Classifier, train: ImageSource, selection: ImageSource | None, attack: Attack, seed: int
) -> Accuracies:
    """As measure(), on the selection images, or where there are none on at most 512 evenly chosen training images."""
    if selection is not None:
        return measure(model, selection, torch.arange(len(selection)), attack, seed)
    stride = math.ceil(len(train) / TRAINING_IMAGES)
    return measure(model, train, torch.arange(len(train))[::stride], attack, seed)


def measure(model: Classifier, source: ImageSource, positions: Tensor, attack: Attack, seed: int) -> Accuracies:
    """Accuracies on the images at these positions, in eval mode and float32; the model's mode comes back."""
    generator = torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    clean = attacked = 0
    for places in torch.split(positions, BATCH):
        images, labels = source.take(places), source.labels[places.to(source.device)]
        clean += _correct(model, images, labels)
        attacked += _correct(model, attack(model, images, labels, generator), labels)
    model.train(was_training)
    return Accuracies(clean=clean / len(positions), attacked=attacked / len(positions))


def _correct(model: Classifier, images: Tensor, labels: Tensor) -> int:
    with torch.no_grad():
        return int((model(images).argmax(dim=1) == labels).sum())
