from pathlib import Path

import numpy as np
import pytest

from service.errors import SetupError
from service.history.bounds import Bounds
from service.history.calibration import Calibration
from service.history.history import History
from service.history.snapshot import load, save
from tests.service.history import toy

BOUNDS = Bounds(entries=500, window_s=100.0, rotate_s=300.0)


@pytest.mark.parametrize("start", [0.0, 250.0], ids=["one secret", "two secrets"])
def test_a_restart_forgets_nothing(calibration: Calibration, tmp_path: Path, start: float) -> None:
    before = History(calibration, dimensions=toy.DIMENSIONS, bounds=BOUNDS)
    before.observe(toy.query(toy.pictures(np.random.default_rng(0), 1)[0], "a", 0.0))
    queries = toy.stream(np.stack(toy.asked(toy.square, 40, 100)), "a", start=start)
    for query in queries[:20]:
        before.observe(query)
    save(before, tmp_path / "history.npz")
    assert (tmp_path / "history.npz").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["history.npz"]
    after = load(tmp_path / "history.npz", calibration, dimensions=toy.DIMENSIONS, bounds=BOUNDS)
    assert len(after) == len(before)
    assert [after.observe(query) for query in queries[20:]] == [before.observe(query) for query in queries[20:]]
    assert len(after.generations) == 1 + (start > 0)


def test_what_expired_meanwhile_is_forgotten(calibration: Calibration, tmp_path: Path) -> None:
    history = History(calibration, dimensions=toy.DIMENSIONS, bounds=BOUNDS)
    image = toy.pictures(np.random.default_rng(0), 1)[0]
    history.observe(toy.query(image, "a", 0.0))
    save(history, tmp_path / "history.npz")
    after = load(tmp_path / "history.npz", calibration, dimensions=toy.DIMENSIONS, bounds=BOUNDS)
    assert not after.observe(toy.query(image, "a", 150.0)).is_repeat


@pytest.mark.parametrize("content", [None, b"", b"something else"])
def test_a_file_that_is_no_history_is_refused(calibration: Calibration, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "history.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SetupError, match=r"history\.npz: expected the history"):
        load(path, calibration, dimensions=toy.DIMENSIONS, bounds=BOUNDS)


def test_a_history_of_other_bounds_is_refused(calibration: Calibration, tmp_path: Path) -> None:
    save(History(calibration, dimensions=toy.DIMENSIONS, bounds=BOUNDS), tmp_path / "history.npz")
    other = Bounds(entries=600, window_s=100.0, rotate_s=300.0)
    with pytest.raises(SetupError, match="other bounds"):
        load(tmp_path / "history.npz", calibration, dimensions=toy.DIMENSIONS, bounds=other)


def test_a_folder_that_cannot_be_written_is_said(calibration: Calibration, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be written"):
        save(History(calibration, dimensions=toy.DIMENSIONS, bounds=BOUNDS), tmp_path / "nowhere" / "history.npz")
