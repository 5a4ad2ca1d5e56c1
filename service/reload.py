"""Another bundle in the place of the one that is served, without a call that notices; or all stays as it is."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

from service.detection.bundle import find_bundle
from service.errors import AdvsentryError, BundleError, Unavailable

__all__ = ["BundleWatch", "Fingerprint", "ask_loop", "fingerprint"]

Fingerprint = tuple[object, ...]

AGAIN_S = 10.0
"""Between two tries of what the files are not to blame for; each has the processes before load the bundle once more."""


def ask_loop(loop: asyncio.AbstractEventLoop, reload: Coroutine[object, object, str]) -> str:
    """Has a loop reload, from another thread.

    Raises:
        AdvsentryError: as the reload; Unavailable when the loop ends.
    """
    try:
        return asyncio.run_coroutine_threadsafe(reload, loop).result()
    except (CancelledError, RuntimeError):
        reload.close()
        raise Unavailable("the server is ending") from None


class BundleWatch:
    """Looks at a bundle's files every few seconds and reloads when they have changed.

    Files that change from one look to the next are left alone, as those of a bundle that is still being copied. What
    cannot be loaded is tried once: again only when a file has changed since, or when it was not for the files.
    """

    def __init__(self, bundle: str, reload: Callable[[], Awaitable[object]], loaded: Fingerprint) -> None:
        """Looks at nothing yet.

        Args:
            bundle: as in the settings.
            reload: raises AdvsentryError where nothing was replaced, which it has logged.
            loaded: of the files from before they were read, so that what changes meanwhile is seen.
        """
        self._bundle = bundle
        self._reload = reload
        self._seen = loaded
        self._tried: Fingerprint | None = loaded

    async def watch(self, every_s: float) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.look()

    async def look(self) -> None:
        """Looks once."""
        found = await asyncio.to_thread(fingerprint, self._bundle)
        if found != self._seen:
            self._seen = found
            return
        if found in (self._tried, ()):
            return
        self._tried = found  # as it was before it is read: what changes while it is read is seen next time
        try:
            await self._reload()
        except Unavailable:  # such as a process that gives no answer
            self._tried = None
            await asyncio.sleep(AGAIN_S)
        except AdvsentryError:  # who reloads has logged it
            pass


def fingerprint(bundle: str) -> Fingerprint:
    """What changes whenever a file of a bundle does, be it by a link that leads elsewhere; empty without a bundle."""
    try:
        path = find_bundle(bundle).resolve()
        return (path, *_entries(path))
    except (BundleError, OSError):
        return ()


def _entries(path: Path) -> Iterator[object]:
    for entry in sorted(path.iterdir()):
        stat = entry.stat()
        yield entry.name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
