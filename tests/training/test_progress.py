import io
from typing import cast

import pytest
from rich.console import Console

from training import progress
from training.config import Recipe, recipe_from_dict
from training.loop import EpochRecord, Loop


class HalfWay:
    """As much of a loop as the reporters look at."""

    recipe: Recipe = recipe_from_dict(
        {
            "data": {"set": "digits", "fit": 1, "calibration": 1, "fusion": 1},
            "train": {"epochs": 4},
            "attack": {"eps": 0.1},
        }
    )
    epoch, steps, steps_done, is_finished = 1, 40, 15, False

    def __init__(self) -> None:
        self.log: list[EpochRecord] = [
            {
                "epoch": 1,
                "loss": 0.5,
                "measured_on": "selection",
                "clean_accuracy": 0.9,
                "attacked_accuracy": 0.625,
                "images_per_second": 1234.0,
            }
        ]

    def running(self) -> dict[str, float]:
        return {"loss": 0.25, "attacked_accuracy": 0.5, "images_per_second": 1000.0}


def report(*, terminal: bool) -> str:
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=200, highlight=False, color_system=None)
    loop = HalfWay()
    with progress.reporting(cast(Loop, loop), console) as reporter:
        loop.steps_done = 20
        reporter.step(cast(Loop, loop))
        reporter.epoch(cast(Loop, loop), loop.log[0])
    return written.getvalue()


@pytest.mark.parametrize("terminal", [True, False], ids=["bar", "lines"])
def test_figures_are_told(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    told = report(terminal=terminal)
    assert "epoch 1/4 done: loss 0.500, clean 90.0%, attacked 62.5% on selection, 1234 images/s" in told
    assert "loss 0.250, clean 90.0%, attacked 50.0%, 1000 images/s" in told
    assert "20/40" in told


def test_lines_come_only_now_and_then() -> None:
    assert report(terminal=False) == ""
