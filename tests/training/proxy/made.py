"""Sets of generated digits for the tests: the real ones, a little brighter."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.training.test_methods import recipe as plain_recipe
from training.checkpoint import load_parts
from training.config import Recipe
from training.data import ImageSet
from training.data.generated import write_generated

LABELLED = {"proxy": {"gamma": 0.4, "share": 0.5}}


def training_part() -> ImageSet:
    _, parts = load_parts(plain_recipe(), None)
    return parts.train


def write(path: Path, count: int = 60, *, labels: bool = True, origin: dict[str, Any] | None = None) -> Path:
    """So many images of digits, brighter by 3 levels; labelled or not."""
    real = training_part().take(np.arange(count) % 200)
    images = np.clip(real.images.astype(int) + 3, 0, 255).astype(np.uint8)
    write_generated(path, images, real.labels if labels else None, origin or {})
    return path


def recipe(path: Path, **sections: dict[str, Any]) -> Recipe:
    return plain_recipe(**{**sections, "proxy": {"set": str(path), **sections.get("proxy", {})}})
