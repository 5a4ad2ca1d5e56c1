"""What a run's detectors learn from, and where the weights that they have learned are kept."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from training.checkpoint import Run, read_tensors, write_tensors
from training.data import ImageSet
from training.detectors import Learned, Lessons
from training.evaluation.entries import budgets_for
from training.folders import make_folder
from training.graph import BundleGraph

__all__ = ["Weights", "keep_learned", "kept_learned", "lessons_of"]

FOLDER = "detectors"
"""Of a run: a file for each graph that was exported from it."""

Weights = Mapping[str, Mapping[str, Tensor]]
"""The state of each learned detector, by kind."""


def lessons_of(run: Run, images: ImageSet) -> Lessons:
    """These images and the run's Linf budget, see budgets_for."""
    attack = run.recipe.attack
    return Lessons(
        images=images.images,
        labels=images.labels,
        eps=budgets_for(attack.norm, attack.eps, math.prod(run.input_shape)).linf,
        seed=run.recipe.train.seed,
        tell=_tell,
    )


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def keep_learned(run: Path, graph: BundleGraph, sha256: str) -> None:
    """Keeps what the detectors of an exported graph have learned, where they have learned anything.

    Args:
        run: its directory.
        graph: as it was exported.
        sha256: of the exported file.

    Raises:
        SetupError: it cannot be written.
    """
    states = {one.kind: dict(one.state_dict()) for one in graph.detectors if isinstance(one, Learned)}
    if states:
        make_folder(run / FOLDER, "run")
        write_tensors(_file(run, sha256), states)


def kept_learned(run: Path, sha256: str) -> Weights:
    """What keep_learned() kept; empty where it kept nothing.

    Raises:
        SetupError: the file is damaged.
    """
    path = _file(run, sha256)
    return read_tensors(path) if path.is_file() else {}


def _file(run: Path, sha256: str) -> Path:
    return run / FOLDER / f"{sha256[:16]}.pt"
