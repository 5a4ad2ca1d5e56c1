"""What a run answers to images, clean and attacked."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.detection.types import Bytes8, Float64s
from training.attacks import Pgd
from training.attacks.rounding import from_8_bit, to_8_bit
from training.models import Classifier

__all__ = ["Views", "accuracy", "as_floats", "attack_images", "see"]

Integers = NDArray[np.int64]

_BATCH = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """Images and what the run makes of them."""

    images: Bytes8
    """(N, H, W, C)."""
    predicted: Integers
    """(N,)."""
    embedding: Float64s
    """(N, D), of unit length."""


def see(model: Classifier, images: Bytes8) -> Views:
    """Predictions and embeddings of 8-bit images (N, H, W, C)."""
    answers = [_answers(model, from_8_bit(torch.from_numpy(batch))) for batch in _batches(images)]
    return Views(
        images=images,
        predicted=np.concatenate([predicted for predicted, _ in answers]),
        embedding=np.concatenate([embedding for _, embedding in answers]),
    )


def _answers(model: Classifier, images: Tensor) -> tuple[Integers, Float64s]:
    with torch.no_grad():
        logits, embedding = model.views(images.to(_device(model)))
    return logits.argmax(dim=1).cpu().numpy(), embedding.cpu().double().numpy()


def attack_images(model: Classifier, images: Bytes8, labels: Integers, attack: Pgd, seed: int) -> Bytes8:
    """Attacked images (N, H, W, C), rounded to 8 bits within the budget."""
    generator = torch.Generator().manual_seed(seed)
    attacked = []
    for start in range(0, len(images), _BATCH):
        clean = from_8_bit(torch.from_numpy(images[start : start + _BATCH])).to(_device(model))
        truth = torch.from_numpy(labels[start : start + _BATCH]).to(_device(model))
        found = attack(model, clean, truth, generator)
        attacked.append(to_8_bit(found, clean, attack.norm, attack.eps).cpu().numpy())
    return np.concatenate(attacked)


def as_floats(images: Bytes8) -> Float64s:
    """8-bit images in [0, 1]."""
    return images.astype(np.float64) / 255


def accuracy(model: Classifier, images: Float64s, labels: Integers) -> float:
    """Share of images (N, H, W, C) that are read rightly."""
    right = 0
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(images[start : start + _BATCH].astype(np.float32)).permute(0, 3, 1, 2)
        right += int((_answers(model, batch)[0] == labels[start : start + _BATCH]).sum())
    return right / len(images)


def _batches(images: Bytes8) -> list[Bytes8]:
    return [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]


def _device(model: Classifier) -> torch.device:
    return next(model.parameters()).device
