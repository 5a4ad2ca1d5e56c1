"""Image files on disk."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from service.errors import ErrorReason, InvalidRequest, SetupError

__all__ = ["SUFFIXES", "check_path", "check_size", "find_images", "read_file"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
"""Endings of the names by which images are found in folders and archives."""


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those below the folders named that end as images do, in order.

    A link to nothing is one of them, so that who reads it says what is missing.

    Raises:
        SetupError: a path does not exist, cannot be read or is no file, a folder holds no image, or one below it cannot
            be read.
    """
    found: list[Path] = []
    for path in paths:
        check_path(path)
        if path.is_dir():
            inside = sorted(entry for entry in _below(path) if entry.is_file() or not entry.exists())
            if not inside:
                raise SetupError(f"{path}: no image in this folder ({', '.join(sorted(SUFFIXES))})")
            found += inside
        else:
            found.append(path)
    return found


def _below(folder: Path) -> Iterator[Path]:
    """What ends as images do, in a folder and all below it; a folder that cannot be read is not left out silently."""

    def refuse(error: OSError) -> None:
        raise _unreadable(Path(error.filename), error) from error

    for root, folders, files in os.walk(folder, onerror=refuse):
        yield from (Path(root, name) for name in (*folders, *files) if Path(name).suffix.lower() in SUFFIXES)


def check_path(path: Path) -> None:
    """Refuses what does not exist, and what never ends, such as a pipe or a device.

    Raises:
        SetupError: it is one of these, or cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            next(path.iterdir(), None)
    except FileNotFoundError:
        raise SetupError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise SetupError(f"{path}: expected an image file or a folder, got a pipe or a device")


def _unreadable(path: Path, error: OSError) -> SetupError:
    return SetupError(f"{_shortened(path)}: cannot be read: {error.strerror}")


def _shortened(path: Path, most: int = 200) -> str:
    text = str(path)
    return text if len(text) <= most else f"...{text[-most:]}"  # the end tells more than the beginning


def read_file(path: Path, most_bytes: int) -> bytes:
    """The content of an image file.

    Args:
        most_bytes: a larger one is not read at all.

    Raises:
        InvalidRequest: it is no file, too large, or cannot be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InvalidRequest("expected an image file, got a folder, a pipe or a device", field="image")
        check_size(found.st_size, most_bytes)
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"cannot be read: {error.strerror}", field="image") from error


def check_size(size: int, most_bytes: int) -> None:
    """Refuses an image before it is read.

    Raises:
        InvalidRequest: it is too large.
    """
    if size > most_bytes:
        raise InvalidRequest(
            f"expected at most {most_bytes} bytes, got {size}", reason=ErrorReason.TOO_MANY_BYTES, field="image"
        )
