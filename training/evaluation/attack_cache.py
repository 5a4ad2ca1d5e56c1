"""Attacked images that were made already, so that a stopped measurement goes on where it was."""

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from service.detection.types import Bytes8
from service.errors import SetupError
from training.checkpoint import write_atomically
from training.network_digest import network_digest

__all__ = ["ATTACKED", "AttackCache", "Made", "digest"]

ATTACKED = "attacked"
"""Folder of a run directory."""

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """Batches that an attack has made so far, of the images that it was asked for."""

    batches: Mapping[int, Bytes8] = field(default_factory=dict)
    """Number of the batch, from 0, to its (n, H, W, C) attacked images."""
    seconds: float = 0.0
    """That they took, over all calls; those of a process among several count for its share."""

    def and_also(self, other: "Made") -> "Made":
        """Both together."""
        return Made(batches={**self.batches, **other.batches}, seconds=self.seconds + other.seconds)


class AttackCache:
    """Files of attacks in a folder, named by the attack and a digest of all that its images depend on.

    While an attack is under way, each process adds a file now and then, also named by the first batch in it, which no
    other process makes; once all batches are there, one file takes the place of these. A file that is damaged counts as
    none. One that cannot be written costs the way back, not the measurement: that is said once and nothing more is
    kept.
    """

    def __init__(self, folder: Path, *, warn: Callable[[str], None]) -> None:
        """Takes the folder, which the first write makes, and what takes a line for people."""
        self._folder = folder
        self._warn = warn
        self._is_writable = True

    def find(self, name: str, key: str) -> Made:
        """What is kept of this attack under this digest, by any number of processes."""
        found = Made()
        for path in (self._whole(name, key), *self._parts(name, key)):
            if (made := _read(path)) is not None and not made.batches.keys() <= found.batches.keys():
                found = found.and_also(made)
        return found

    def add(self, name: str, key: str, made: Made) -> None:
        """Keeps one batch or more, none of which is kept yet."""
        self._write(self._folder / f"{name}-{key}.{min(made.batches)}.npz", made)

    def complete(self, name: str, key: str, made: Made) -> None:
        """Keeps all batches in one file, and removes what was added before."""
        self._write(self._whole(name, key), made)
        if self._is_writable:
            for path in self._parts(name, key):
                path.unlink(missing_ok=True)

    def _whole(self, name: str, key: str) -> Path:
        return self._folder / f"{name}-{key}.npz"

    def _parts(self, name: str, key: str) -> list[Path]:
        return sorted(self._folder.glob(f"{name}-{key}.*.npz"))

    def _write(self, path: Path, made: Made) -> None:
        if not self._is_writable:
            return
        buffer = io.BytesIO()
        images = {f"batch{number}": batch for number, batch in made.batches.items()}
        np.savez(buffer, allow_pickle=False, seconds=np.float64(made.seconds), **images)
        try:
            self._folder.mkdir(exist_ok=True)
            write_atomically(path, buffer.getvalue())
        except (OSError, SetupError) as error:
            self._is_writable = False
            self._warn(f"attacked images are not kept: {error}")


def _read(path: Path) -> Made | None:
    try:
        content = io.BytesIO(path.read_bytes())  # np.load leaves a damaged file open
        with np.load(content, allow_pickle=False) as arrays:
            batches = {int(name[5:]): arrays[name] for name in arrays.files if name.startswith("batch")}
            return Made(batches=batches, seconds=float(arrays["seconds"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def digest(model: nn.Module, images: Bytes8, labels: NDArray[np.int64], attack: str) -> str:
    """Of all that attacked images depend on: network, clean images, labels, attack, and the code of this package.

    Args:
        attack: its name and settings, with seed and batch size, in words that are the same in another process.
    """
    words = f"{attack}\n{torch.__version__}\n{_code()}\n{network_digest(model)}\n{images.shape}\n"
    found = hashlib.sha256(words.encode())
    found.update(np.ascontiguousarray(images).tobytes())
    found.update(np.ascontiguousarray(labels).tobytes())
    return found.hexdigest()[:16]


@cache
def _code() -> str:
    """Digest of this package's own files: images made by other code are not taken for ours."""
    found = hashlib.sha256()
    for path in sorted(_ROOT.rglob("*.py")):
        found.update(path.relative_to(_ROOT).as_posix().encode())
        found.update(path.read_bytes())
    return found.hexdigest()
