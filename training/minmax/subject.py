"""Finished runs and their test images as a problem of one of the three kinds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.detection.types import Integers
from service.errors import SetupError
from training.attacks.rounding import from_8_bit
from training.checkpoint import Run
from training.data import ImageSet
from training.evaluation.held_out import choose_images
from training.minmax.problems import Ensemble, Problem, Transforms, Universal
from training.minmax.settings import Kind
from training.side_by_side import run_names

__all__ = ["chosen_images", "grouped", "problem_of"]


def chosen_images(kind: Kind, labels: Integers, count: int, group: int, seed: int) -> Integers:
    """Positions among the test images of those that are attacked: (n,), or of universal groups (n, group).

    Raises:
        SetupError: fewer images than asked for, or no class with a whole group.
    """
    if count > len(labels):
        raise SetupError(f"--images: expected at most the {len(labels)} test images of the runs, got {count}")
    if kind != "universal":
        return choose_images(labels, count, seed)
    return grouped(labels, count // group, group, seed)


def grouped(labels: Integers, groups: int, size: int, seed: int) -> Integers:
    """Positions (groups, size) of images of one class each, the classes in turn, no image twice.

    Raises:
        SetupError: there are not so many.
    """
    draws = np.random.default_rng(seed)
    of_class = [draws.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    whole = [members[: len(members) // size * size].reshape(-1, size) for members in of_class]
    turns = sorted((turn, label) for label, several in enumerate(whole) for turn in range(len(several)))
    if not 0 < groups <= len(turns):
        raise SetupError(
            f"--images: expected 1 to {len(turns)} groups of {size} images of a class, got {groups}; "
            "change --images or --group"
        )
    return np.stack([whole[label][turn] for turn, label in turns[:groups]])


def problem_of(kind: Kind, runs: Sequence[Run], paths: Sequence[Path], test: ImageSet, chosen: Integers) -> Problem:
    """The problem; its domains are called by the runs' names without their seeds, or by the transformations.

    Raises:
        SetupError: an ensemble of fewer than two runs, or several for another kind.
    """
    if (len(runs) > 1) != (kind == "ensemble"):
        wanted = "two runs or more" if kind == "ensemble" else "one run"
        raise SetupError(f"minmax {kind}: expected {wanted}, got {len(runs)}")
    device = next(runs[0].model.parameters()).device
    clean = from_8_bit(np.ascontiguousarray(test.images[chosen.ravel()])).to(device)
    if kind == "ensemble":
        return Ensemble([run.model for run in runs], _names(runs, paths), clean)
    if kind == "transforms":
        return Transforms(runs[0].model, clean)
    return Universal(runs[0].model, clean.view(*chosen.shape, *clean.shape[1:]))


def _names(runs: Sequence[Run], paths: Sequence[Path]) -> tuple[str, ...]:
    pairs = zip(run_names(paths), runs, strict=True)
    names = [name.removesuffix(f"-s{run.recipe.train.seed}") for name, run in pairs]
    return tuple(names) if len(set(names)) == len(names) else tuple(run_names(paths))
