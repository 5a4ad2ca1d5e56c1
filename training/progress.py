"""How far a run is, on standard error: a bar for people, a line now and then for files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.loop import EpochRecord, Loop

__all__ = ["Reporter", "reporting"]

LINE_EVERY_S = 10.0


class Reporter(Protocol):
    """Is told of every step and every epoch."""

    def step(self, loop: Loop) -> None:
        """A step is done."""

    def epoch(self, loop: Loop, record: EpochRecord) -> None:
        """An epoch is done and measured."""


@contextmanager
def reporting(loop: Loop, console: Console | None = None) -> Iterator[Reporter]:
    """A bar where the console (default: standard error) is a terminal, else plain lines."""
    console = console or Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield _Lines(console, loop)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress, loop)


class _Bar:
    def __init__(self, progress: Progress, loop: Loop) -> None:
        self._progress = progress
        self._task = progress.add_task("training", total=loop.steps, completed=loop.steps_done, figures="")

    def step(self, loop: Loop) -> None:
        epoch = f"epoch {loop.epoch + 1}/{loop.recipe.train.epochs}"
        self._progress.update(self._task, completed=loop.steps_done, description=epoch, figures=_figures(loop))

    def epoch(self, loop: Loop, record: EpochRecord) -> None:
        self._progress.console.print(_summary(loop, record))


class _Lines:
    def __init__(self, console: Console, loop: Loop) -> None:
        self._console = console
        self._started = self._last = time.monotonic()
        self._first = loop.steps_done

    def step(self, loop: Loop) -> None:
        now = time.monotonic()
        if now - self._last < LINE_EVERY_S:
            return
        self._last = now
        left_s = (loop.steps - loop.steps_done) * (now - self._started) / (loop.steps_done - self._first)
        self._console.print(
            f"epoch {loop.epoch + 1}/{loop.recipe.train.epochs} step {loop.steps_done}/{loop.steps} "
            f"{_figures(loop)}, {_clock(left_s)} left"
        )

    def epoch(self, loop: Loop, record: EpochRecord) -> None:
        if time.monotonic() - self._last >= LINE_EVERY_S or loop.is_finished:
            self._last = time.monotonic()
            self._console.print(_summary(loop, record))


def _figures(loop: Loop) -> str:
    """The epoch under way; clean accuracy is that of the last epoch measured."""
    running = loop.running()
    clean = f"clean {loop.log[-1]['clean_accuracy']:.1%}, " if loop.log else ""
    attacked = f"attacked {running['attacked_accuracy']:.1%}"
    return f"loss {running['loss']:.3f}, {clean}{attacked}, {running['images_per_second']:.0f} images/s"


def _summary(loop: Loop, record: EpochRecord) -> str:
    return (
        f"epoch {record['epoch']}/{loop.recipe.train.epochs} done: loss {record['loss']:.3f}, "
        f"clean {record['clean_accuracy']:.1%}, attacked {record['attacked_accuracy']:.1%} "
        f"on {record['measured_on']}, {record['images_per_second']:.0f} images/s"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
