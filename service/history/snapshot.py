"""A history in a file, so that a restart does not forget a search that is under way."""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import SetupError
from service.history.bounds import Bounds
from service.history.calibration import Calibration
from service.history.history import History

__all__ = ["load", "save"]

FORMAT = 5
_SCOPES = ("own", "everyone")


def save(history: History, path: Path) -> None:
    """Writes a history; the whole file is put in place at once.

    It holds the secret and what callers sent, so nobody but the user who runs the server may read it.

    Raises:
        SetupError: the file cannot be written.
    """
    history.store.settle()
    arrays = {f"store.{name}": array for name, array in history.store.arrays().items()}
    for scope in _SCOPES:
        components = getattr(history, scope)
        components.rebuild()
        arrays |= {f"{scope}.{name}": array for name, array in components.arrays().items()}
    arrays["secret"] = np.frombuffer(history.secret, np.uint8)
    arrays["turns"] = np.array([history.clock, *history.generations])
    arrays["made_for"] = _made_for(history.calibration, history.bounds)
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        beside.touch(mode=0o600)
        with beside.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's own keyword is none of these names
        os.replace(beside, path)
    except OSError as error:
        raise SetupError(f"{path}: the history cannot be written: {error.strerror}") from error


def load(path: Path, calibration: Calibration, *, dimensions: int, bounds: Bounds) -> History:
    """Reads a history that was made with the same calibration and bounds.

    What expired meanwhile goes at the first query.

    Raises:
        SetupError: the file cannot be read, is no history, or was made with others.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not np.array_equal(file["made_for"], _made_for(calibration, bounds)):
                raise ValueError("made with another calibration, other bounds or by another version")
            history = History(calibration, dimensions=dimensions, bounds=bounds, secret=file["secret"].tobytes())
            history.clock, *generations = file["turns"].tolist()
            history.generations = tuple(int(number) for number in generations)
            if len(generations) == 2:
                history.store.begin_next()
            for name in ("store", *_SCOPES):
                getattr(history, name).restore(partial(_array, file, name))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise SetupError(f"{path}: expected the history of this server, got {error}; remove the file") from error
    return history


def _made_for(calibration: Calibration, bounds: Bounds) -> np.ndarray:
    content = repr((FORMAT, bounds)).encode() + calibration.to_bytes()
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)


def _array(file: Mapping[str, NDArray[Any]], whole: str, name: str) -> NDArray[Any]:
    return file[f"{whole}.{name}"]
