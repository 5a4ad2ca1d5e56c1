"""The `proxy select` command: keeps the generated images that look most real."""

import argparse
import sys
from pathlib import Path

import torch

from training.checkpoint import load_parts
from training.checks import require
from training.config import Recipe, load_recipe
from training.data.generated import read_generated, write_generated
from training.folders import make_folder
from training.precision import deterministic
from training.proxy.discriminator import Discriminating
from training.proxy.loading import check_generated
from training.proxy.selecting import kept_of_each_class, realness

__all__ = ["run_command", "select"]


def select(
    recipe: Recipe,
    data_root: Path | None,
    path: Path,
    out: Path,
    *,
    share: float,
    eps: float,
    settings: Discriminating,
) -> int:
    """Writes the images of a set that look most real, so many of each class; gives how many there are.

    Args:
        recipe: see trained_discriminator; the real images are its training part.
        data_root: folder of the data.
        path: of the set.
        out: the .npz file that is written.
        share: of each class, that is kept.
        eps: size of the attack, in the recipe's norm.
        settings: see Discriminating.

    Raises:
        SetupError: a share out of range, too few images, or a set that does not belong to the recipe's data.
    """
    require(0 < share <= 1, "--keep", "a number above 0, at most 1", share)
    require(eps >= 0, "--eps", "a number of at least 0", eps)
    require(out.suffix == ".npz" and not out.is_dir(), "--out", "a file NAME.npz", str(out))
    require(out.resolve() != path.resolve(), "--out", "another file than the set's", str(out))
    make_folder(out.parent, "--out")
    dataset, parts = load_parts(recipe, data_root)
    found = read_generated(path)
    check_generated(path, found, recipe, dataset)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with deterministic(recipe.train.threads):
        values = realness(parts.train.images, found.images, eps, recipe, settings, device)
    kept = kept_of_each_class(values, found.labels, share)
    told = {**found.origin, "chosen": {"share": share, "eps": eps, "seed": settings.seed}}
    write_generated(out, found.images[kept], None if found.labels is None else found.labels[kept], told)
    return len(kept)


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `proxy select`; gives its exit status."""
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    settings = Discriminating(epochs=arguments.epochs, steps=arguments.pgd_steps, seed=arguments.seed)
    eps = recipe.attack.eps / 2 if arguments.eps is None else arguments.eps
    kept = select(
        recipe, arguments.data, arguments.set, arguments.out, share=arguments.keep, eps=eps, settings=settings
    )
    sys.stderr.write(f"{arguments.out}: {kept} images\n")
    return 0
