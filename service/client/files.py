"""Image files on disk."""

import stat
from collections.abc import Sequence
from pathlib import Path

from service.errors import ErrorReason, InvalidRequest, SetupError

__all__ = ["find_images", "read_file"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those below the folders named that end as images do, in order.

    Raises:
        SetupError: a path does not exist, cannot be read or is no file, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        _check_path(path)
        if path.is_dir():
            inside = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in SUFFIXES and entry.is_file())
            if not inside:
                raise SetupError(f"{path}: no image in this folder ({', '.join(sorted(SUFFIXES))})")
            found += inside
        else:
            found.append(path)
    return found


def _check_path(path: Path) -> None:
    """Refuses what does not exist, and what never ends, such as a pipe or a device."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            next(path.iterdir(), None)
    except FileNotFoundError:
        raise SetupError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise SetupError(f"{_shortened(path)}: cannot be read: {error.strerror}") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise SetupError(f"{path}: expected an image file or a folder, got a pipe or a device")


def _shortened(path: Path, most: int = 200) -> str:
    text = str(path)
    return text if len(text) <= most else f"...{text[-most:]}"  # the end tells more than the beginning


def read_file(path: Path, most_bytes: int) -> bytes:
    """The content of an image file.

    Args:
        most_bytes: a larger one is not read at all.

    Raises:
        InvalidRequest: it is too large or cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise InvalidRequest(
                f"expected at most {most_bytes} bytes, got {size}", reason=ErrorReason.TOO_MANY_BYTES, field="image"
            )
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"cannot be read: {error.strerror}", field="image") from error
