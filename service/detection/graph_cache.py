"""Keeps onnxruntime's optimised graphs between starts, outside every bundle.

A kept graph runs in place of the bundle's, which was checked against its manifest. So the folder must belong to this
process's user, with no access for others, and each file carries the SHA-256 of its content, which tells damage. Who may
write as this user could change the package and the bundle as well; against him the folder guards nothing.
"""

import contextlib
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["GraphCache", "cache_folder"]

log = logging.getLogger(__name__)

PAYS_S = 0.25
"""Of processor time for making a session, from which on a graph is kept. Most of a short one goes into reading weights,
which a kept graph has as well, and checking the kept file costs more than is saved."""
MOST_FILES = 8
LEFTOVER_S = 3600.0
"""Age at which a temporary file is one that a process left when it was killed."""
SUFFIX, TEMPORARY = ".graph", ".tmp"


def cache_folder(setting: str) -> Path | None:
    """The folder that a setting stands for: `auto` is the user's own cache, an empty text none."""
    if setting != "auto":
        return Path(setting) if setting else None
    try:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError:  # a user without a home, as containers may have
        return None
    return Path(base) / "advsentry"


class GraphCache:
    """Files by key, each as large as its graph; the least recently used go.

    Whatever goes wrong with a file or the folder is a line in the log, and no reason not to start.
    """

    def __init__(self, folder: Path, *, pays_s: float = PAYS_S) -> None:
        """Touches nothing yet.

        Args:
            folder: what is kept lies in a folder of its own inside.
            pays_s: least processor time of a session whose graph is kept.
        """
        self._folder = folder / "graphs"
        self.pays_s = pays_s

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever kept."""
        return not os.path.lexists(self._folder)  # unlike Path.exists, False for what may not be looked at

    def read(self, key: str) -> bytes | None:
        """What was kept under a key, checked; None when there is nothing that may be used."""
        path = self._folder / (key + SUFFIX)
        try:
            _check_private(self._folder)
            content = _checked(path.read_bytes())
            os.utime(path)  # used now, so that others are pruned first
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("optimised graph %s: not used: %s", path, _reason(error))
            return None
        return content

    @contextlib.contextmanager
    def writing(self, key: str) -> Iterator[Path | None]:
        """A place to write to, which becomes the key's content when the block ends; None when nothing can be kept.

        A block that raises, or writes nothing, leaves nothing behind.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(self._folder)
            descriptor, name = tempfile.mkstemp(suffix=TEMPORARY, dir=self._folder)
            os.close(descriptor)
        except (OSError, ValueError) as error:
            log.warning("optimised graph: cannot be kept in %s: %s", self._folder, _reason(error))
            yield None
            return
        place = Path(name)
        try:
            yield place
            self._finish(place, key)
        finally:
            place.unlink(missing_ok=True)

    def _finish(self, place: Path, key: str) -> None:
        try:
            content = place.read_bytes()
            if not content:
                return
            with place.open("ab") as file:
                file.write(hashlib.sha256(content).digest())
                file.flush()
                os.fsync(file.fileno())
            place.rename(self._folder / (key + SUFFIX))
            self._prune()
        except OSError as error:
            log.warning("optimised graph: cannot be kept in %s: %s", self._folder, _reason(error))

    def _prune(self) -> None:
        by_age = sorted(self._folder.glob("*" + SUFFIX), key=_last_used, reverse=True)
        left = [path for path in self._folder.glob("*" + TEMPORARY) if time.time() - _last_used(path) > LEFTOVER_S]
        for path in [*by_age[MOST_FILES:], *left]:
            path.unlink(missing_ok=True)


def _checked(content: bytes) -> bytes:
    size = hashlib.sha256().digest_size
    graph, digest = content[:-size], content[-size:]
    if hashlib.sha256(graph).digest() != digest:
        raise ValueError("the file is damaged")
    return graph


def _check_private(folder: Path) -> None:
    found = folder.lstat()
    if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & 0o077):
        raise ValueError("expected a folder of this user with mode 700, which no other may enter")


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process pruned it
        return 0.0


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
