"""How far a run is, on standard error: one moving line for people, a line now and then for files."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

import numpy as np

from service.scoring.decoding import Columns

__all__ = ["Progress", "progress_line"]

MOVE_EVERY_S, LINE_EVERY_S = 0.5, 10.0


class Progress:
    """Counts images, and the bytes of files behind them, by which it tells the time that is left."""

    def __init__(self, size: int, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts the clock.

        Args:
            size: bytes of all inputs.
            stream: standard error when None.
        """
        self._size = size
        self._stream = stream or sys.stderr
        self._moves = self._stream.isatty()
        self._clock = clock
        self._start = self._last = clock()
        self._images = 0
        self._errors = 0
        self._passed = 0.0
        self._done = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell()
        if self._moves:
            self._stream.write("\n")

    def pass_over(self, weight: float) -> None:
        """Counts bytes that an earlier run has finished."""
        self._passed += weight

    def add(self, columns: Columns) -> None:
        """Counts scored rows."""
        is_image = columns["number"] >= 0
        self._images += int(np.count_nonzero(is_image))
        self._errors += int(np.count_nonzero(columns["error"][is_image] != ""))
        self._done += float(columns["weight"].sum())
        if self._clock() - self._last >= (MOVE_EVERY_S if self._moves else LINE_EVERY_S):
            self._tell()

    def _tell(self) -> None:
        self._last = self._clock()
        line = progress_line(
            images=self._images,
            errors=self._errors,
            seconds=self._last - self._start,
            done=self._done,
            left=self._size - self._passed - self._done,
        )
        self._stream.write(f"\r\x1b[K{line}" if self._moves else line + "\n")
        self._stream.flush()


def progress_line(*, images: int, errors: int, seconds: float, done: float, left: float) -> str:
    """What is told.

    Args:
        seconds: that this run has taken.
        done: bytes of files that it has read in them.
        left: bytes that come.

    >>> progress_line(images=3000, errors=0, seconds=2.0, done=5e6, left=45e6)
    '3,000 images, 1,500 images/s, 10 %, 18 s left'
    >>> progress_line(images=3000, errors=2, seconds=60.0, done=5e6, left=45e6)
    '3,000 images, 2 with an error, 50 images/s, 10 %, 9 min left'
    >>> progress_line(images=0, errors=0, seconds=0.0, done=0.0, left=45e6)
    '0 images'
    """
    parts = [f"{images:,} images"]
    parts += [f"{errors:,} with an error"] if errors else []
    parts += [f"{images / seconds:,.0f} images/s"] if images and seconds > 0 else []
    if done > 0:
        left = max(0.0, left)
        parts += [f"{100 * done / (done + left):.0f} %", f"{_time(seconds * left / done)} left"]
    return ", ".join(parts)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
