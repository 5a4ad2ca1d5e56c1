"""How far an evaluation is, on standard error: one moving line for people, a line now and then for files."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from training.launch import is_first

__all__ = ["reporting", "time_left"]

_LINE_EVERY_S = 10.0


@contextmanager
def reporting() -> Iterator[Callable[[str], None]]:
    """Gives what takes the lines; a line whose first word is new is always shown, by the first process alone."""
    if not is_first():
        yield lambda _: None
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if console.is_terminal:
        with console.status("evaluating") as status:
            yield status.update
        return
    yield _Lines(console)


def time_left(seconds: float, *, done: int, left: int) -> str:
    """In words, behind a comma; empty until there is a pace to tell it by.

    Args:
        seconds: that the images done have taken.
        done: images.
        left: images that come.

    >>> time_left(30.0, done=100, left=300), time_left(300.0, done=100, left=300), time_left(0.0, done=0, left=300)
    (', 90 s left', ', 15 min left', '')
    """
    if not done:
        return ""
    expected = seconds * left / done
    return f", {expected:.0f} s left" if expected < 120 else f", {expected / 60:.0f} min left"


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
