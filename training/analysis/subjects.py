"""The runs that are analysed side by side, and the test images that they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from service.errors import SetupError
from training.checkpoint import Run
from training.config import AttackConfig
from training.data.types import ImageSet
from training.evaluation.held_out import choose_images
from training.side_by_side import load_alike, parts_of_all, run_names

__all__ = ["LEAST_IMAGES", "MOST_IMAGES", "Subject", "common_budget", "load_subjects"]

LEAST_IMAGES = 20
"""Fewer make no map and no spectrum worth looking at."""
MOST_IMAGES = 4_000
"""Every two images are compared, so that more would take gigabytes."""
_GALLERY = 2_000
"""Images of the fit part among which neighbours are looked for, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A finished run and the clean images among which its neighbours are looked for."""

    name: str
    """The run directory's name, or its path where names are equal."""
    run: Run
    gallery: ImageSet
    """From the run's own `fit` part; of a recipe with data.fit = 0 that is the training part."""


def load_subjects(
    paths: Sequence[Path], data: Path | None, count: int, seed: int, device: torch.device
) -> tuple[list[Subject], ImageSet]:
    """The runs, and test images that no run was trained on.

    Args:
        paths: run directories.
        data: folder of the data set, if it needs one.
        count: test images wanted; all where there are fewer.
        seed: of the choice.
        device: of the models.

    Raises:
        SetupError: a run is not there or not finished, its data are missing or other ones, two runs do not belong
            together, or there are too few test images.
    """
    runs = load_alike(paths, device)
    every = parts_of_all(runs, data)
    subjects = []
    for run, name, parts in zip(runs, run_names(paths), every, strict=True):
        gallery = parts.fit.take(choose_images(parts.fit.labels, _GALLERY, seed))
        subjects.append(Subject(name=name, run=run, gallery=gallery))
    return subjects, _chosen(every[0].test, count, seed)


def _chosen(test: ImageSet, count: int, seed: int) -> ImageSet:
    if len(test) < LEAST_IMAGES:
        raise SetupError(f"expected at least {LEAST_IMAGES} test images, got {len(test)}; analyse a larger data set")
    chosen = test.take(choose_images(test.labels, count, seed))
    if len(np.unique(chosen.labels)) < 2:
        raise SetupError("expected test images of at least 2 classes, got 1; raise --images")
    return chosen


def common_budget(subjects: Sequence[Subject], eps: float | None) -> tuple[Literal["linf", "l2"], float]:
    """Norm and eps that all runs were trained for, or this eps.

    Raises:
        SetupError: the runs' norms differ, or their eps do and none is given.
    """
    attacks = [subject.run.recipe.attack for subject in subjects]
    said = "; ".join(f"{subject.name} {_words(attack)}" for subject, attack in zip(subjects, attacks, strict=True))
    if len({attack.norm for attack in attacks}) > 1:
        raise SetupError(f"expected runs trained for one norm, got {said}; analyse them apart")
    if eps is None and len({attack.eps for attack in attacks}) > 1:
        raise SetupError(f"expected runs trained for one budget, got {said}; name one for all with --eps")
    return attacks[0].norm, attacks[0].eps if eps is None else eps


def _words(attack: AttackConfig) -> str:
    return f"{attack.norm} {attack.eps:g}"
