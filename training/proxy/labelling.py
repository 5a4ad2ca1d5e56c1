"""Labels for generated images without any: those that a classifier gives them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from service.detection.bundle import find_bundle, load_bundle
from service.detection.graph import Graph
from service.detection.types import Bytes8, Integers
from service.errors import AdvsentryError, SetupError
from training.attacks.rounding import from_8_bit
from training.checkpoint import CHECKPOINT, load_run
from training.config import Recipe
from training.differences import listed
from training.models import Classifier
from training.proxy.unseen import check_unseen

__all__ = ["pseudo_labels"]

BATCH = 256
Answers = Callable[[Bytes8], Integers]
"""Images (n, H, W, C) to the classes (n,) that a classifier sees in them."""


def pseudo_labels(
    images: Bytes8, recipe: Recipe, class_names: tuple[str, ...], device: torch.device | None = None
) -> Integers:
    """The class (N,) that the recipe's labeller gives each image.

    Args:
        images: (N, H, W, C).
        recipe: whose proxy.labeller is a run directory, a bundle or the name of a shipped one.
        class_names: of the recipe's data set.
        device: where a run's network computes.

    Raises:
        SetupError: no such classifier, one for other images or classes, or one that may have seen held-out images.
    """
    name = recipe.proxy.labeller
    try:
        if (Path(name) / CHECKPOINT).is_file():
            run = load_run(Path(name), device=device)
            shape, names, training = run.input_shape, run.class_names, vars(run.recipe.data)
            answers = _of_network(run.model)
        else:
            bundle = load_bundle(find_bundle(name))
            manifest = bundle.manifest
            shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
            names, training = manifest.class_names, manifest.training.get("data", {})
            graph = Graph(bundle.graph, bundle.graph_shape)
            answers = lambda batch: graph.run(batch).logits.argmax(axis=1)  # noqa: E731
    except AdvsentryError as error:
        raise SetupError(f"proxy.labeller: expected a finished run or a bundle: {error}") from error
    if shape != images.shape[1:] or names != class_names:
        raise SetupError(
            f"proxy.labeller: {name}: expected a classifier of images {images.shape[1:]} into the classes "
            f"{listed(class_names)}, got one of {shape} into {listed(names)}"
        )
    check_unseen(f"proxy.labeller: {name}", training, recipe)
    batches = [answers(np.ascontiguousarray(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
    return np.concatenate(batches).astype(np.int64)


def _of_network(model: Classifier) -> Answers:
    device = next(model.parameters()).device

    def answers(batch: Bytes8) -> Integers:
        with torch.no_grad():
            found: Integers = model(from_8_bit(batch).to(device)).argmax(dim=1).cpu().numpy()
        return found

    return answers
