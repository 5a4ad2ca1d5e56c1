"""Files that an operator may put others in place of while the server runs."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["LOOK_S", "WatchedFiles", "read_file"]

LOOK_S = 1.0
"""Seconds between two looks at the same files."""


class WatchedFiles:
    """Says when one of a few files became another; may be asked from several threads, as often as one likes."""

    def __init__(self, paths: Sequence[Path], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes the files as they are now for known."""
        self._paths = paths
        self._clock = clock
        self._lock = threading.Lock()
        self._known = self._stamps()
        self._looked_at = clock()

    def have_changed(self) -> bool:
        """Whether they became others since this said so last; looks at most once in `LOOK_S`.

        A file that is gone is another one, too. A symbolic link is followed, so that a link which is turned to another
        file counts.
        """
        if self._clock() - self._looked_at < LOOK_S:
            return False
        with self._lock:
            self._looked_at = self._clock()
            stamps = self._stamps()
            has_changed = stamps != self._known
            self._known = stamps
            return has_changed

    def _stamps(self) -> list[tuple[int, ...] | None]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (
        found.st_ino,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_size,
    )  # a copy may keep the second, not the third


def read_file(path: Path, what: str) -> bytes:
    """The content of an operator's file.

    Raises:
        OSError: it cannot be read; the text says which file, what it is for and why.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise OSError(f"{what} {path}: cannot be read: {error.strerror}") from error
