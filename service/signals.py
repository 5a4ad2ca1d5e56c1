"""What a serving process and its supervisor do at a signal."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable

from service.errors import AdvsentryError

__all__ = ["keep_reload", "on_signals"]


def keep_reload() -> None:
    """Keeps a SIGHUP for `on_signals`, when that follows before the event loop runs on; the process would end by it."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: None)


def on_signals(
    *, reload: Callable[[], Awaitable[object]], before_exit: Callable[[], None] = lambda: None
) -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second one ends the process at once. SIGHUP reloads.

    Args:
        reload: tells by itself what came of it.
        before_exit: called before the process ends at once.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()

    def received() -> None:
        if ended.is_set():
            before_exit()
            os._exit(1)
        ended.set()

    async def reload_once() -> None:
        with contextlib.suppress(AdvsentryError):
            await reload()

    def hung_up() -> None:
        task = loop.create_task(reload_once())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    return ended
