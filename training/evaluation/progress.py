"""How far an evaluation is, on standard error: one moving line for people, a line now and then for files."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

__all__ = ["reporting"]

_LINE_EVERY_S = 10.0


@contextmanager
def reporting() -> Iterator[Callable[[str], None]]:
    """Gives what takes the lines; a line whose first word is new is always shown."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if console.is_terminal:
        with console.status("evaluating") as status:
            yield status.update
        return
    yield _Lines(console)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = ""
        self._last = 0.0

    def __call__(self, line: str) -> None:
        stage, now = line.split(":")[0], time.monotonic()
        if stage == self._stage and now - self._last < _LINE_EVERY_S:
            return
        self._stage, self._last = stage, now
        self._console.print(line)
