"""What is told on the way."""

import io

import numpy as np

from service.scoring.decoding import Columns
from service.scoring.progress import LINE_EVERY_S, MOVE_EVERY_S, Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def rows(count: int, *, weight: float, errors: int = 0) -> Columns:
    return {
        "number": np.array([*range(count), -1]),
        "error": np.array([*["bad"] * errors, *[""] * (count + 1 - errors)], object),
        "weight": np.full(count + 1, weight / (count + 1)),
    }


def test_a_file_gets_a_line_now_and_then_and_one_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(1000, stream, clock=clock) as progress:
        progress.add(rows(10, weight=100.0))
        clock.now += LINE_EVERY_S
        progress.add(rows(10, weight=100.0, errors=1))
        clock.now += LINE_EVERY_S - 1
        progress.add(rows(10, weight=100.0))
    assert stream.getvalue().splitlines() == [
        "20 images, 1 with an error, 2 images/s, 20 %, 40 s left",
        "30 images, 1 with an error, 2 images/s, 30 %, 44 s left",
    ]


def test_a_terminal_has_one_line_that_moves() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(1000, stream, clock=clock) as progress:
        clock.now += 4 * MOVE_EVERY_S
        progress.add(rows(10, weight=500.0))
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("\r\x1b[K10 images, 5 images/s, 50 %, 2 s left\n")


def test_what_an_earlier_run_has_finished_does_not_count_as_pace() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(1000, stream, clock=clock) as progress:
        progress.pass_over(800.0)
        clock.now += 10
        progress.add(rows(10, weight=100.0))
    assert stream.getvalue().splitlines()[-1] == "10 images, 1 images/s, 50 %, 10 s left"
