"""The runs that are analysed side by side, and the test images that they share."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from service.errors import SetupError
from training.checkpoint import Run, load_run
from training.config import AttackConfig
from training.data.types import ImageSet
from training.evaluation.evaluate import choose_images

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
    if len({path.resolve() for path in paths}) < len(paths):
        raise SetupError("expected different run directories, got one of them twice")
    runs = [load_run(path, device=device) for path in paths]
    for run in runs[1:]:
        _check_alike(runs[0], run)
    subjects, tests = [], []
    for run, name in zip(runs, _names(paths), strict=True):
        parts = run.parts(data)
        gallery = parts.fit.take(choose_images(parts.fit.labels, _GALLERY, seed))
        subjects.append(Subject(name=name, run=run, gallery=gallery))
        tests.append(parts.test)
    for run, test in zip(runs[1:], tests[1:], strict=True):
        if _digest(test) != _digest(tests[0]):
            raise SetupError(
                f"{run.path}: expected the test images of {runs[0].path}, got others; a set without a test split of "
                "its own needs the same [data] in every recipe"
            )
    return subjects, _chosen(tests[0], count, seed)


def _check_alike(first: Run, other: Run) -> None:
    for what, ours, theirs in (
        ("the data set", first.recipe.data.set, other.recipe.data.set),
        ("images (H, W, C) of", first.input_shape, other.input_shape),
        ("the class names", ", ".join(first.class_names), ", ".join(other.class_names)),
    ):
        if ours != theirs:
            raise SetupError(
                f"{other.path}: expected {what} {ours} as in {first.path}, got {theirs}; analyse them apart"
            )


def _names(paths: Sequence[Path]) -> list[str]:
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _digest(images: ImageSet) -> str:
    digest = hashlib.sha256(images.images.tobytes())
    digest.update(images.labels.tobytes())
    return digest.hexdigest()


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
