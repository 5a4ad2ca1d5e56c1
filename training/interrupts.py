"""Ctrl-C and SIGTERM wait for the end of the step under way."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupts", "deferred_interrupts"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Whether a signal has come; a second one ends the program at once, as without us."""

    requested = False


@contextmanager
def deferred_interrupts() -> Iterator[Interrupts]:
    """Collects signals for the time of the block; outside the main thread it does nothing."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(_number: int, _frame: FrameType | None) -> None:
        interrupts.requested = True
        restore()

    for number in SIGNALS:
        signal.signal(number, request)
    try:
        yield interrupts
    finally:
        restore()
