"""The `proxy generate` command: learns from a recipe's training part, and draws images of its kind."""

import argparse
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np

from training.checkpoint import data_digest, load_parts
from training.checks import at_least, one_of, require
from training.config import Recipe, load_recipe, recipe_to_dict
from training.data.generated import write_generated
from training.folders import make_folder
from training.generators import GENERATORS, Learning
from training.precision import deterministic

__all__ = ["generate", "run_command"]


def generate(
    name: str,
    recipe: Recipe,
    data_root: Path | None,
    out: Path,
    *,
    images: int,
    learning: Learning,
    labelled: bool = True,
) -> None:
    """Writes a set of generated images, equally many of each class, in random order.

    Args:
        name: a key of GENERATORS.
        recipe: whose training part is learned from, and no other image.
        data_root: folder of the data.
        out: the .npz file.
        images: how many.
        learning: for generators with weights; its seed counts for all.
        labelled: whether the file holds the labels.

    Raises:
        SetupError: an unknown generator, missing data, or too few images of a class.
    """
    one_of(GENERATORS, "GENERATOR", name)
    at_least(1, "--images", images)
    require(out.suffix == ".npz" and not out.is_dir(), "--out", "a file NAME.npz", str(out))
    make_folder(out.parent, "--out")
    dataset, parts = load_parts(recipe, data_root)
    classes = len(dataset.class_names)
    random = np.random.default_rng(np.random.SeedSequence([learning.seed]))
    labels = random.permutation(np.arange(images, dtype=np.int64) % classes)
    with deterministic(recipe.train.threads):
        made = GENERATORS[name](parts.train, classes, learning).sample(labels, random)
    told = {
        "generator": name,
        "seed": learning.seed,
        "data": recipe_to_dict(recipe)["data"],
        "learned_from": data_digest(parts),
    }
    write_generated(out, made, labels if labelled else None, told)


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `proxy generate`; gives its exit status."""
    began = time.monotonic()
    given = {field.name: getattr(arguments, field.name) for field in fields(Learning)}
    learning = Learning(**{name: value for name, value in given.items() if value is not None})
    generate(
        arguments.generator,
        load_recipe(arguments.recipe, arguments.overrides),
        arguments.data,
        arguments.out,
        images=arguments.images,
        learning=learning,
        labelled=not arguments.unlabelled,
    )
    sys.stderr.write(f"{arguments.out}: {arguments.images} images in {time.monotonic() - began:.0f} s\n")
    return 0
