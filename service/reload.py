"""Another bundle in the place of the one that is served, without a call that notices; or all stays as it is."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

from service.detection.bundle import find_bundle
from service.errors import AdvsentryError, BundleError, Unavailable

__all__ = ["BundleWatch", "ask_loop"]

log = logging.getLogger(__name__)


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

    What cannot be loaded is tried once: again only when a file has changed since, as those of a bundle do that is still
    being copied.
    """

    def __init__(self, bundle: str, reload: Callable[[], Awaitable[object]]) -> None:
        """Takes the files as they are for loaded.

        Args:
            bundle: as in the settings.
            reload: raises AdvsentryError where nothing was replaced.
        """
        self._bundle = bundle
        self._reload = reload
        self._seen = fingerprint(bundle)
        self._told = ""

    async def watch(self, every_s: float) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.look()

    async def look(self) -> None:
        """Looks once."""
        found = await asyncio.to_thread(fingerprint, self._bundle)
        if found in (self._seen, ()):
            return
        self._seen = found  # as it was before it is read: what changes while it is read is seen next time
        try:
            await self._reload()
            self._told = ""
        except AdvsentryError as error:
            if str(error) != self._told:
                log.error("the changed bundle is not served: %s", error)
            self._told = str(error)


def fingerprint(bundle: str) -> tuple[object, ...]:
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
