"""What is attacked, and what the history knows before: test images of a bundle's data set, and benign traffic of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.redteam.search import Goal
from service.detection.engine import Engine
from service.detection.types import Bytes8, Integers
from service.detection.verdict import judge
from service.errors import SetupError
from training.checkpoint import load_parts
from training.config import recipe_from_dict
from training.data.splits import Parts
from training.evaluation.held_out import choose_images

__all__ = ["Victims", "parts_of", "victims_of"]

OTHERS = 5
"""Clean images of other classes that an attacker has."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Victims:
    """Test images that the bundle reads rightly and accepts."""

    images: Bytes8
    """(N, H, W, C)."""
    labels: Integers
    """(N,)."""
    others: Sequence[Bytes8]
    """Of each image, (K, H, W, C) that are read rightly as other classes, and accepted."""

    def goals(self, eps: int) -> list[Goal]:
        """To be read wrongly within so many levels."""
        return [
            Goal(image=image, label=int(label), eps=eps, others=others)
            for image, label, others in zip(self.images, self.labels, self.others, strict=True)
        ]


def parts_of(engine: Engine, data: Path | None) -> Parts:
    """The parts of the data set that the bundle was made of.

    Raises:
        SetupError: the data are missing or damaged, or the bundle does not say which.
    """
    manifest = engine.bundle.manifest
    if not manifest.training:
        raise SetupError(f"{manifest.name}: expected a recipe in the manifest, got none; train the bundle again")
    return load_parts(recipe_from_dict(manifest.training), data)[1]


def victims_of(engine: Engine, parts: Parts, count: int, seed: int) -> Victims:
    """So many test images, the classes in proportion.

    Raises:
        SetupError: too few are read rightly and accepted.
    """
    images, labels = np.ascontiguousarray(parts.test.images), parts.test.labels
    pool = choose_images(labels, 4 * count + 20 * OTHERS, seed)
    measured = engine.measure(images[pool])
    right = (measured.labels == labels[pool]) & ~judge(
        measured, engine.bundle, engine.bundle.manifest.default_alpha
    ).is_adversarial
    pool = pool[right]
    chosen = pool[choose_images(labels[pool], count, seed)]
    if len(chosen) < count or len(np.unique(labels[pool])) < 2:
        raise SetupError(
            f"expected {count} test images of two classes or more that are read rightly and accepted, got "
            f"{len(chosen)}; ask for fewer"
        )
    generator = np.random.default_rng(seed)
    others = [
        images[generator.permutation(pool[labels[pool] != labels[number]])[:OTHERS]] for number in chosen.tolist()
    ]
    return Victims(images=images[chosen], labels=labels[chosen], others=others)
