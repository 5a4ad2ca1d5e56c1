"""Folders that a command writes to."""

from pathlib import Path

from service.errors import SetupError

__all__ = ["make_folder"]


def make_folder(path: Path, option: str) -> None:
    """Makes a folder, and those above it, where there is none.

    Args:
        path: the folder.
        option: of the command line, that named it.

    Raises:
        SetupError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"{option} {path}: cannot be made a folder: {error.strerror}") from error
