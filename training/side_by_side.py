"""Finished runs that are looked at together: of one data set, with the same test images."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from service.errors import SetupError
from training.checkpoint import Run, load_run
from training.data.splits import Parts
from training.data.types import ImageSet

__all__ = ["load_alike", "parts_of_all", "run_names"]


def load_alike(paths: Sequence[Path], device: torch.device) -> list[Run]:
    """Runs of one data set, image size and classes.

    Raises:
        SetupError: a run is not there or not finished, is named twice, or does not belong to the first.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise SetupError("expected different run directories, got one of them twice")
    runs = [load_run(path, device=device) for path in paths]
    for run in runs[1:]:
        _check_alike(runs[0], run)
    return runs


def parts_of_all(runs: Sequence[Run], data: Path | None) -> list[Parts]:
    """The parts of each run, whose test images are the same: no run was trained on any of them.

    Raises:
        SetupError: data are missing or other ones, or test images differ.
    """
    parts = [run.parts(data) for run in runs]
    for run, own in zip(runs[1:], parts[1:], strict=True):
        if _digest(own.test) != _digest(parts[0].test):
            raise SetupError(
                f"{run.path}: expected the test images of {runs[0].path}, got others; a set without a test split of "
                "its own needs the same [data] in every recipe"
            )
    return parts


def run_names(paths: Sequence[Path]) -> list[str]:
    """Names of the directories, or their paths where names are equal."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _check_alike(first: Run, other: Run) -> None:
    for what, ours, theirs in (
        ("the data set", first.recipe.data.set, other.recipe.data.set),
        ("images (H, W, C) of", first.input_shape, other.input_shape),
        ("the class names", ", ".join(first.class_names), ", ".join(other.class_names)),
    ):
        if ours != theirs:
            raise SetupError(
                f"{other.path}: expected {what} {ours} as in {first.path}, got {theirs}; look at them apart"
            )


def _digest(images: ImageSet) -> str:
    digest = hashlib.sha256(images.images.tobytes())
    digest.update(images.labels.tobytes())
    return digest.hexdigest()
