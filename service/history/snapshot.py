"""A history in a file, so that a restart does not forget a search that is under way."""

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np

from service.errors import SetupError
from service.history.bounds import Bounds
from service.history.calibration import Calibration
from service.history.history import History

__all__ = ["load", "save"]

FORMAT = 4
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
        arrays |= {f"{scope}.of": components.of, f"{scope}.rows": components.rows}
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
            arrays = {name: file[name] for name in file}
        if not np.array_equal(arrays["made_for"], _made_for(calibration, bounds)):
            raise ValueError("made with another calibration, other bounds or by another version")
        history = History(calibration, dimensions=dimensions, bounds=bounds, secret=arrays["secret"].tobytes())
        history.clock, *generations = arrays["turns"].tolist()
        history.generations = tuple(int(number) for number in generations)
        if len(generations) == 2:
            history.store.begin_next()
        prefix = "store."
        history.store.restore(
            {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        )
        for scope in _SCOPES:
            getattr(history, scope).restore(arrays[f"{scope}.of"], arrays[f"{scope}.rows"])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise SetupError(f"{path}: expected the history of this server, got {error}; remove the file") from error
    return history


def _made_for(calibration: Calibration, bounds: Bounds) -> np.ndarray:
    content = repr((FORMAT, bounds)).encode() + calibration.to_bytes()
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
