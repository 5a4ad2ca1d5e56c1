"""Attacked images that were made already, so that a stopped measurement goes on where it was."""

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
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
    """What an attack has made so far: the first rows of its images."""

    images: Bytes8
    """(n, H, W, C), n of the N that were asked for."""
    generator: NDArray[np.uint8]
    """State of the attack's random numbers behind them."""
    seconds: float
    """That they took, over all calls."""


class AttackCache:
    """One file an attack in a folder, named by the attack and a digest of all that its images depend on.

    A file that is damaged counts as none. One that cannot be written costs the way back, not the measurement: that is
    said once and nothing more is kept.
    """

    def __init__(self, folder: Path, *, warn: Callable[[str], None]) -> None:
        """Takes the folder, which the first write makes, and what takes a line for people."""
        self._folder = folder
        self._warn = warn
        self._is_writable = True

    def find(self, name: str, key: str) -> Made | None:
        """What is kept of this attack under this digest."""
        try:
            content = io.BytesIO(self._path(name, key).read_bytes())  # np.load leaves a damaged file open
            with np.load(content, allow_pickle=False) as arrays:
                return Made(images=arrays["images"], generator=arrays["generator"], seconds=float(arrays["seconds"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def keep(self, name: str, key: str, made: Made) -> None:
        """Replaces what is kept of it."""
        if not self._is_writable:
            return
        buffer = io.BytesIO()
        np.savez(buffer, images=made.images, generator=made.generator, seconds=np.float64(made.seconds))
        try:
            self._folder.mkdir(exist_ok=True)
            write_atomically(self._path(name, key), buffer.getvalue())
        except (OSError, SetupError) as error:
            self._is_writable = False
            self._warn(f"attacked images are not kept: {error}")

    def _path(self, name: str, key: str) -> Path:
        return self._folder / f"{name}-{key}.npz"


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
