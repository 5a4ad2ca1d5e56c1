"""Threads wait for their pixels, and a large image has its turn."""

import threading
import time

from service.rpc.budget import PixelBudget


class Decoder(threading.Thread):
    """Holds pixels until it is let go."""

    def __init__(self, budget: PixelBudget, pixels: int) -> None:
        super().__init__(daemon=True)
        self.budget, self.pixels = budget, pixels
        self.has_them, self.go = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with self.budget.taken(self.pixels):
            self.has_them.set()
            self.go.wait(10)

    def end(self) -> None:
        self.go.set()
        self.join(10)


def test_what_does_not_fit_waits_and_is_passed_by_nobody() -> None:
    budget = PixelBudget(100)
    first, second = Decoder(budget, 60), Decoder(budget, 40)
    assert first.has_them.wait(5)
    assert second.has_them.wait(5)
    large = Decoder(budget, 100)
    time.sleep(0.05)
    small = Decoder(budget, 1)
    first.end()
    assert not large.has_them.wait(0.05)
    assert not small.has_them.is_set()
    second.end()
    assert large.has_them.wait(5)
    assert not small.has_them.is_set()
    large.end()
    assert small.has_them.wait(5)
    small.end()


def test_an_error_gives_the_pixels_back() -> None:
    budget = PixelBudget(1)
    for _ in range(2):
        try:
            with budget.taken(1):
                raise ValueError
        except ValueError:
            pass
    with budget.taken(1):
        pass
