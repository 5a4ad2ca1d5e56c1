"""service/rpc/watched.py."""

import os
from pathlib import Path

import pytest

from service.rpc.watched import LOOK_S, WatchedFiles, read_file


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_change_is_told_once_and_looked_for_once_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "a", Clock()
    path.write_text("1")
    watched = WatchedFiles([path], clock=clock)
    path.write_text("22")
    assert not watched.have_changed()  # too soon to look
    clock.now += LOOK_S
    assert watched.have_changed()
    clock.now += LOOK_S
    assert not watched.have_changed()


def test_a_file_gone_a_file_back_and_a_link_turned_are_changes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("same")
        os.utime(tmp_path / name, (1, 1))
    link, clock = tmp_path / "link", Clock()
    link.symlink_to("one")
    watched = WatchedFiles([link], clock=clock)

    def then() -> bool:
        clock.now += LOOK_S
        return watched.have_changed()

    assert not then()
    link.unlink()
    assert then()
    link.symlink_to("two")
    assert then()
    assert not then()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"key .*nope: cannot be read: No such file"):
        read_file(tmp_path / "nope", "key")


def test_another_file_of_the_same_size_and_time_is_a_change(tmp_path: Path) -> None:
    path, clock = tmp_path / "a", Clock()
    path.write_text("one")
    os.utime(path, (1, 1))
    watched = WatchedFiles([path], clock=clock)
    path.write_text("two")
    os.utime(path, (1, 1))  # as a copy that keeps times
    clock.now += LOOK_S
    assert watched.have_changed()
