"""Run directories: what fit leaves, and how export and evaluation read it."""

import errno
import hashlib
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from service.errors import SetupError
from training.config import Recipe, recipe_from_dict, recipe_values
from training.data import DataSet, load_data
from training.data.classes import first_classes
from training.data.splits import Parts, Sizes, split
from training.differences import differences, listed
from training.models import Classifier, build_model

__all__ = [
    "CHECKPOINT",
    "Run",
    "code_version",
    "data_digest",
    "load_parts",
    "load_run",
    "read_checkpoint",
    "starting_model",
    "write_atomically",
    "write_checkpoint",
]

CHECKPOINT = "checkpoint.pt"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FORMAT = 2
AGAIN = "put a good copy back, or begin anew in another folder with `advsentry-train fit`"
KEYS = frozenset({"format", "recipe", "class_names", "input_shape", "data_digest", "is_finished", "loop"})


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run."""

    path: Path
    recipe: Recipe
    model: Classifier
    """In eval mode, frozen; the averaged weights where the recipe averages, of the best epoch by the selection part, or
    else of the last."""
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    """H, W, C."""
    epoch: int
    """The epoch, from 1, whose weights these are."""
    seconds: float
    """What training took, every epoch's measuring included; pauses between interrupted calls are not."""
    digest: str
    """Of the training part; parts() refuses other data."""

    def parts(self, data_root: Path | None) -> Parts:
        """The six parts that this run was trained with.

        Raises:
            SetupError: the data are missing, damaged or not those of the run.
        """
        _, parts = load_parts(self.recipe, data_root)
        if data_digest(parts) != self.digest:
            raise SetupError(f"{self.path}: expected the data that the run was trained on, got others")
        return parts


def load_parts(recipe: Recipe, data_root: Path | None) -> tuple[DataSet, Parts]:
    """The data set of a recipe and its six parts.

    Raises:
        SetupError: the data are missing or damaged, too few for the recipe's sizes, without the classes that the recipe
            names, or the training part lacks a class.
    """
    config = recipe.data
    dataset = first_classes(load_data(config.set, data_root), config.classes)
    sizes = Sizes(
        train=config.train,
        selection=config.selection,
        fit=config.fit,
        calibration=config.calibration,
        fusion=config.fusion,
    )
    parts = split(dataset, sizes, config.seed)
    _check_classes(dataset, parts)
    return dataset, parts


def _check_classes(dataset: DataSet, parts: Parts) -> None:
    """Refuses what leaves a class unknown to the network, to triplets and to detectors."""
    names = dataset.class_names
    if len(names) < 2:
        raise SetupError(f"{dataset.name}: expected two classes or more, got {len(names)}; add images of another class")
    counts = np.bincount(parts.train.labels, minlength=len(names))
    missing = [f"{names[label]!r} ({label})" for label in np.flatnonzero(counts == 0)]
    if missing:
        raise SetupError(
            f"{dataset.name}: expected training images of all {len(names)} classes, got none of {listed(missing)}; "
            "add images of them, leave them out of the class names, or enlarge data.train"
        )


def data_digest(parts: Parts) -> str:
    """SHA-256 of the training part, images and labels."""
    digest = hashlib.sha256(parts.train.images.tobytes())
    digest.update(parts.train.labels.tobytes())
    return digest.hexdigest()


def code_version() -> str:
    """Version of the installed distribution."""
    return version("advsentry")


def load_run(run: Path, *, device: torch.device | None = None) -> Run:
    """Reads a finished run directory.

    Raises:
        SetupError: missing, damaged, of another format, or not finished.
    """
    content = read_checkpoint(run)
    try:
        return _run(run, content, device or torch.device("cpu"))
    except (KeyError, TypeError, ValueError) as error:  # a part lacks, or is of another kind
        raise SetupError(
            f"{run / CHECKPOINT}: expected a checkpoint as fit leaves it, got a damaged one ({error!r}); {AGAIN}"
        ) from error


def _run(run: Path, content: Mapping[str, Any], device: torch.device) -> Run:
    if not content["is_finished"]:
        done = f"{content['loop']['epoch']} of {content['recipe']['train']['epochs']} epochs"
        raise SetupError(f"{run}: expected a finished run, got {done}; `advsentry-train fit` resumes it")
    recipe = recipe_from_dict(content["recipe"])
    height, width, channels = content["input_shape"]
    model = build_model(recipe.model, channels, height, width, len(content["class_names"]))
    loop = content["loop"]
    best = loop["best_averaged"] or loop["best"] or loop
    try:
        model.load_state_dict(best["model"])
    except RuntimeError as error:
        raise SetupError(f"{run / CHECKPOINT}: expected weights of {recipe.model.name}, got others; {AGAIN}") from error
    return Run(
        path=run,
        recipe=recipe,
        model=model.eval().requires_grad_(False).to(device),
        class_names=tuple(content["class_names"]),
        input_shape=(height, width, channels),
        epoch=best["epoch"],
        seconds=sum(record["seconds"] for record in loop["log"]),
        digest=content["data_digest"],
    )


def starting_model(recipe: Recipe, class_names: tuple[str, ...], input_shape: tuple[int, ...]) -> Classifier:
    """The network of the run that a recipe's train.start_from names.

    Raises:
        SetupError: it is no finished run, or one of another network, image size or classes.
    """
    try:
        run = load_run(Path(recipe.train.start_from))
    except SetupError as error:
        raise SetupError(f"train.start_from: {error}") from error
    for whose, remedy, expected, got in (
        ("the recipe's network", "set [model] as there, or name another run", _network(recipe), _network(run.recipe)),
        ("images of this size", "name another run", _size(input_shape), _size(run.input_shape)),
        ("these classes", "name another run", _classes(class_names), _classes(run.class_names)),
    ):
        different = differences(expected, got)
        if different:
            raise SetupError(
                f"train.start_from: {run.path}: expected a run with {whose}, got one with {different}; {remedy}"
            )
    return run.model


def _network(recipe: Recipe) -> dict[str, object]:
    return {key: value for key, value in recipe_values(recipe).items() if key.startswith("model.")}


def _size(shape: Sequence[int]) -> dict[str, object]:
    return dict(zip(("height", "width", "channels"), shape, strict=True))


def _classes(names: Sequence[str]) -> dict[str, object]:
    return {f"class {label}": name for label, name in enumerate(names)}


def read_checkpoint(run: Path) -> dict[str, Any]:
    """The content of a run's checkpoint, on the CPU.

    Raises:
        SetupError: no such directory, no checkpoint in it, a damaged one, or another format.
    """
    path = run / CHECKPOINT
    if not path.is_file():
        raise SetupError(
            f"{run}: expected a run directory with {CHECKPOINT}, found none; `advsentry-train fit` makes one"
        )
    content = _loaded(path, "a readable checkpoint", AGAIN)
    if not isinstance(content, dict) or not content.keys() >= KEYS or content["format"] != FORMAT:
        raise SetupError(f"{path}: expected a checkpoint of format {FORMAT}, got another file; {AGAIN}")
    return content


def read_tensors(path: Path) -> dict[str, Any]:
    """What write_tensors() wrote, on the CPU.

    Raises:
        SetupError: it is damaged.
    """
    content = _loaded(path, "readable weights", "export the bundle again")
    if not isinstance(content, dict):
        raise SetupError(f"{path}: expected weights by name, got {type(content).__name__}; export the bundle again")
    return content


def _loaded(path: Path, wanted: str, remedy: str) -> Any:  # whatever the file holds
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise SetupError(f"{path}: expected {wanted}, got a damaged file; {remedy}") from error


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Replaces a file of tensors as write_checkpoint() does.

    Raises:
        SetupError: as for write_checkpoint.
    """
    with _replacing(path) as file:
        torch.save(dict(content), file)


def write_checkpoint(run: Path, content: dict[str, Any]) -> None:
    """Replaces the run's checkpoint; a crash leaves the old one or the new one, never half of one.

    Raises:
        SetupError: it cannot be written, on a full disk for example; the old one stays.
    """
    with _replacing(run / CHECKPOINT) as file:
        torch.save({"format": FORMAT, **content}, file)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces a file in the same way; text becomes UTF-8.

    Raises:
        SetupError: as for write_checkpoint.
    """
    with _replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of this one when the block ends well, and else is gone."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            _to_disk(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # torch.save hides the system's error
        if not isinstance(cause, OSError) or cause.errno is None:
            raise
        raise SetupError(_unsaved(path, cause)) from error
    finally:
        with suppress(OSError):  # in its place already, or never made
            temporary.unlink()
    # The rename itself is safe only once the directory is on disk too.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        _to_disk(directory)
    finally:
        os.close(directory)


def _unsaved(path: Path, error: OSError) -> str:
    reason = f"a full disk ({error.strerror})" if error.errno in FULL else error.strerror
    return (
        f"{path}: expected to save it, got {reason}; what stood there before is whole: "
        "make room or mend the folder, then run the same command again"
    )


def _to_disk(descriptor: int) -> None:
    os.fsync(descriptor)
