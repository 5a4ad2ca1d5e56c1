"""A thread that looks at a server while others load it."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

__all__ = ["Watch"]


class Watch:
    """Calls a probe every so often and keeps what it gives."""

    def __init__(self, probe: Callable[[], float], every_s: float) -> None:
        """Does not begin yet: it is a context manager."""
        self.seen: list[float] = []
        self._probe = probe
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(30)

    def _look(self) -> None:
        while not self._ended.wait(self._every_s):
            self.seen.append(self._probe())
