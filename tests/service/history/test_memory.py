"""What a history holds: little at first, then as much as is kept, never more than it may, and nothing once closed."""

import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.history.bounds import Bounds, bytes_per_entry
from service.history.calibration import Calibration
from service.history.history import History
from service.history.recent import RECENT, recent_bytes
from tests.service.history import toy

ENTRIES, QUERIES = 100_000, 2000


def arrays(of: object) -> Iterator[np.ndarray]:
    """All arrays that an object of the history holds, however deep, but those that belong to the bundle."""
    if isinstance(of, Calibration):
        return
    if isinstance(of, np.ndarray):
        yield of
    elif isinstance(of, (list, tuple)):
        for one in of:
            yield from arrays(one)
    elif type(of).__module__.startswith("service.history.") and hasattr(of, "__dict__"):
        for one in vars(of).values():
            yield from arrays(one)


def test_memory_is_taken_as_queries_are_kept_and_goes_back(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "calibration"
    path.write_bytes(calibration.to_bytes())
    command = [sys.executable, "-m", "tests.service.history.growing", str(path), str(ENTRIES), str(QUERIES)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told = json.loads(done.stdout)
    for kept, says, holds in told["grows"]:
        assert holds == pytest.approx(says, rel=0.1, abs=1_000_000)
        assert holds <= 100 * ENTRIES + 3500 * kept
    _, _, at_first = told["grows"][0]
    assert at_first <= 20 * ENTRIES
    assert told["closed"] <= 1_000_000


def test_closing_lets_every_array_go_at_once(calibration: Calibration) -> None:
    history = History(calibration, dimensions=toy.DIMENSIONS, bounds=Bounds(window_s=50.0, rotate_s=100.0))
    for query in toy.stream(toy.pictures(np.random.default_rng(0), 100), "a", start=0.0):
        history.observe(query)
    held = [weakref.ref(array) for array in arrays(history)]
    assert sum(array.nbytes for one in held if (array := one()) is not None) > 10_000_000
    del query
    history.close()
    history.close()
    assert not [array.shape for one in held if (array := one()) is not None]


def test_the_bytes_are_capped_even_while_the_secret_is_replaced(calibration: Calibration) -> None:
    most = 1_000_000
    bounds = Bounds(max_bytes=most, window_s=50.0, rotate_s=150.0)
    history = History(calibration, dimensions=toy.DIMENSIONS, bounds=bounds)
    largest = 0
    for number, image in enumerate(toy.pictures(np.random.default_rng(0), 1200)):
        history.observe(toy.query(image, f"client {number}", number / 10))
        largest = max(largest, history.nbytes)
    assert len(history.generations) == 2
    assert 0.5 * most < largest <= most
    entries = history.store.capacity + RECENT
    assert entries * bytes_per_entry(toy.DIMENSIONS) + recent_bytes(toy.DIMENSIONS) == pytest.approx(most, rel=2e-3)
