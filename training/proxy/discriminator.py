"""Tells generated images from real ones although they are attacked: a network of two classes, adversarially trained."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from service.detection.types import Bytes8
from training.attacks import Pgd
from training.checks import at_least
from training.config import Recipe
from training.data import ImageSet
from training.data.batches import ImageSource, epoch_order
from training.measure import measure
from training.models import Classifier, build_model
from training.optimiser import build_optimiser
from training.precision import autocast, uses_bf16
from training.schedule import learning_rate

__all__ = ["GENERATED", "REAL", "Discriminating", "both", "robust_accuracy", "scores", "trained_discriminator"]

GENERATED, REAL = 0, 1
"""Its classes."""
RATE = 0.5
"""Of the recipe's learning rate: there are two classes only, and steps are few."""
MEASURED_STEPS = 10
WARM_UP = 0.6
"""Share of the steps in which the attack grows: at its full size from the start, it leaves networks that answer alike
to every image, and nothing could be ranked."""
BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Discriminating:
    """How a discriminator learns; network, optimiser and threads are the recipe's."""

    epochs: int = 30
    steps: int = 5
    """Of PGD in training; more measure."""
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value, low in (("epochs", self.epochs, 1), ("pgd-steps", self.steps, 1), ("seed", self.seed, 0)):
            at_least(low, f"--{option}", value)


def both(real: Bytes8, generated: Bytes8) -> ImageSet:
    """Two sets of images (N, H, W, C) and (M, H, W, C) as one set of two classes."""
    labels = np.repeat(np.array([REAL, GENERATED], dtype=np.int64), [len(real), len(generated)])
    return ImageSet(images=np.concatenate([real, generated]), labels=labels)


def trained_discriminator(
    images: ImageSet, eps: float, recipe: Recipe, settings: Discriminating, device: torch.device
) -> Classifier:
    """A network in eval mode that withstands attacks of this size, or was trained on clean images for eps 0.

    Args:
        images: of the classes GENERATED and REAL, as both() makes them.
        eps: of the recipe's norm.
        recipe: gives the network, the optimiser, the norm and the precision.
        settings: see there.
        device: where it computes.
    """
    _, height, width, channels = images.images.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = build_model(recipe.model, channels, height, width, classes=2).to(device)
    source, config = ImageSource(images, device), recipe.train
    optimiser, generator = build_optimiser(config, model), torch.Generator().manual_seed(settings.seed)
    size = min(config.batch_size, len(source))
    batches, bf16 = len(source) // size, uses_bf16(config.precision, device)
    steps = settings.epochs * batches
    for step in range(steps):
        epoch, batch = divmod(step, batches)
        positions = epoch_order(len(source), settings.seed, epoch)[batch * size :][:size]
        seen, labels = source.take(positions), source.labels[positions.to(device)]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate("one-cycle", RATE * config.learning_rate, step, steps)
        attack = _attack(recipe.attack.norm, min(1.0, (step + 1) / (WARM_UP * steps)) * eps, settings.steps)
        with autocast(device, bf16=bf16):
            attacked = seen if attack is None else attack(model, seen, labels, generator)
            loss = F.cross_entropy(model(attacked).float(), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval()


def robust_accuracy(
    model: Classifier, images: ImageSet, eps: float, norm: Literal["linf", "l2"], device: torch.device, seed: int
) -> float:
    """Share of the images, of both classes, that it tells rightly under PGD of this size."""
    source, attack = ImageSource(images, device), _attack(norm, eps, MEASURED_STEPS)
    if attack is None:
        return _clean_accuracy(model, source)
    return measure(model, source, torch.arange(len(source)), attack, seed).attacked


def scores(
    model: Classifier, images: Bytes8, eps: float, norm: Literal["linf", "l2"], device: torch.device, seed: int
) -> Tensor:
    """How real generated images (N, H, W, C) look, attacked towards looking generated: logit differences (N,)."""
    attack, generator = _attack(norm, eps, MEASURED_STEPS), torch.Generator().manual_seed(seed)
    source = ImageSource(ImageSet(images=images, labels=np.full(len(images), REAL, dtype=np.int64)), device)
    found = []
    for positions in torch.split(torch.arange(len(source)), BATCH):
        seen, labels = source.take(positions), source.labels[positions.to(device)]
        # To lower the score is to raise the loss of the class REAL.
        attacked = seen if attack is None else attack(model, seen, labels, generator)
        with torch.no_grad():
            logits = model(attacked).float()
        found.append((logits[:, REAL] - logits[:, GENERATED]).cpu())
    return torch.cat(found)


def _attack(norm: Literal["linf", "l2"], eps: float, steps: int) -> Pgd | None:
    return Pgd(norm=norm, eps=eps, steps=steps) if eps else None


@torch.no_grad()
def _clean_accuracy(model: Classifier, source: ImageSource) -> float:
    right = 0
    for positions in torch.split(torch.arange(len(source)), BATCH):
        found = model(source.take(positions)).argmax(dim=1)
        right += int((found == source.labels[positions.to(source.device)]).sum())
    return right / len(source)
