"""What becomes of memory: gives back what glibc would keep, and spares the collector what lives on.

Threads that decode images leave freed memory in arenas of their own, which glibc neither shares nor returns by itself.
"""

import asyncio
import ctypes
import gc
import logging
import os
from collections.abc import Callable
from typing import Any

__all__ = ["keep_trimmed", "limit_arenas", "settle", "trim"]

log = logging.getLogger(__name__)

M_ARENA_MAX = -8  # of glibc's malloc.h
ARENAS = 2
EVERY_S = 60.0
BUSY_S = 1.0


def limit_arenas() -> bool:
    """Lets the threads of this process share two arenas, unless the operator set `MALLOC_ARENA_MAX`.

    Only arenas that are not made yet are saved, so it belongs before the first thread.

    Returns:
        Whether it was done.
    """
    mallopt = _glibc("mallopt")
    return mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ and bool(mallopt(M_ARENA_MAX, ARENAS))


def trim() -> bool:
    """Gives freed memory back to the system.

    Returns:
        Whether there was any.
    """
    malloc_trim = _glibc("malloc_trim")
    return malloc_trim is not None and bool(malloc_trim(0))


def settle() -> None:
    """Takes what lives now for what lives on, once everything is loaded.

    Else Python's collector looks through all of it again and again while calls wait. What is frozen
    goes like anything else when nobody holds it any more; only rings of it stay.
    """
    gc.collect()
    gc.freeze()


async def keep_trimmed(is_idle: Callable[[], bool], *, every_s: float = EVERY_S, busy_s: float = BUSY_S) -> None:
    """Trims until cancelled, once a minute at most and only between images, since malloc stands still meanwhile.

    Args:
        is_idle: whether no image waits or runs.
        every_s: seconds between two trims.
        busy_s: seconds until a busy server is looked at again.
    """
    while True:
        await asyncio.sleep(every_s)
        while not is_idle():
            await asyncio.sleep(busy_s)
        log.debug("memory: %s", "some given back" if await asyncio.to_thread(trim) else "none to give back")


def _glibc(name: str) -> Any:
    """A function of glibc; None where the process has another C library."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library; one without a global namespace; Windows
        return None
