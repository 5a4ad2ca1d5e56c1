"""`advsentry tune`: what is chosen from known times, and the command on the tiny bundle."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service import tune as tuning
from service.__main__ import main
from service.settings import Settings
from service.tune import Crowd, Point, best_batch, best_threads, best_workers, measure_points


class Machine:
    """A clock, and graphs that take known times; other work makes every so-and-so-many-th run ten times slower."""

    def __init__(self, seconds: Callable[[int, int], float], disturbed: int = 10**9) -> None:
        self.now = 0.0
        self.runs: list[tuple[int, int]] = []
        self._seconds = seconds
        self._disturbed = disturbed

    def run(self, threads: int) -> Callable[[int], None]:
        def once(batch: int) -> None:
            self.runs.append((threads, batch))
            slower = 10 if len(self.runs) % self._disturbed == 0 else 1
            self.now += slower * self._seconds(threads, batch)

        return once

    def measure(self, *threads: int, seconds: float = 10.0, extra_s: float = 0.0) -> list[Point]:
        runs = {count: self.run(count) for count in threads}
        return measure_points(runs, (1, 2, 4, 8, 16, 32), seconds=seconds, extra_s=extra_s, clock=lambda: self.now)


def flat(threads: int, batch: int) -> float:
    """1 ms a run and 1 ms an image; threads share it evenly."""
    return (0.001 + 0.001 * batch) / threads


def test_times_are_those_of_the_graph() -> None:
    points = Machine(flat).measure(1, 2)
    assert {(point.threads, point.batch): point.batch_ms for point in points} == {
        (threads, batch): pytest.approx((1 + batch) / threads) for threads in (1, 2) for batch in (1, 2, 4, 8, 16, 32)
    }
    assert points[-1].images_per_s == pytest.approx(32 / 0.0165)


@pytest.mark.parametrize("disturbed", [2, 3, 5, 7])
def test_other_work_on_the_machine_changes_nothing(disturbed: int) -> None:
    quiet, loud = Machine(flat).measure(1, 2), Machine(flat, disturbed).measure(1, 2)
    assert [point.batch_ms for point in loud] == pytest.approx([point.batch_ms for point in quiet])


def test_points_are_measured_in_turns() -> None:
    machine = Machine(flat)
    machine.measure(1, 2)
    turns = [now for now, before in zip(machine.runs, [None, *machine.runs], strict=False) if now != before]
    assert turns.count((1, 1)) == 1 + tuning.ROUNDS  # the first to warm it
    assert turns[-12:] == [(threads, batch) for threads in (1, 2) for batch in (1, 2, 4, 8, 16, 32)]


def test_about_so_many_seconds_are_taken() -> None:
    machine = Machine(lambda threads, batch: 1e-4 * batch)
    machine.measure(1, 2, seconds=5.0)
    assert 4.5 < machine.now < 6.0


def test_a_batch_that_takes_too_long_ends_the_sizes_but_not_the_first() -> None:
    def batches(seconds_an_image: float) -> list[int]:
        return [point.batch for point in Machine(lambda _, batch: seconds_an_image * batch).measure(1, seconds=10)]

    assert batches(0.03) == [1, 2, 4]  # 8 take more than a fiftieth of 10 s
    assert batches(5.0) == [1]


def test_the_smallest_batch_that_is_nearly_best_is_chosen() -> None:
    points = Machine(flat).measure(1)
    assert [round(point.images_per_s) for point in points] == [500, 667, 800, 889, 941, 970]
    assert best_batch(points) == 16


def test_what_a_batch_costs_by_itself_speaks_for_larger_ones() -> None:
    cheap = Machine(lambda threads, batch: 1e-6 * batch)
    assert best_batch(cheap.measure(1, seconds=0.1)) == 1
    assert best_batch(cheap.measure(1, seconds=0.1, extra_s=1e-5)) == 32


def test_the_fewest_threads_that_are_nearly_best_are_chosen() -> None:
    assert best_threads(Machine(flat).measure(1, 2, 4)) == 4
    assert best_threads(Machine(lambda threads, batch: 0.001 * batch / (1 + 0.01 * threads)).measure(1, 2)) == 1


def test_the_fewest_processes_that_are_nearly_best_are_chosen() -> None:
    def crowds(*rates: float) -> list[Crowd]:
        return [Crowd(workers=2**i, threads=1, images_per_s=rate) for i, rate in enumerate(rates)]

    assert best_workers(crowds(100, 104)).workers == 1
    assert best_workers(crowds(100, 150, 155)).workers == 2
    assert best_workers(crowds(100, 90)).workers == 1


def test_the_command_prints_and_writes_what_serve_takes(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "cpu_quota", lambda: 2)
    monkeypatch.setattr(tuning, "HAND_OVERS", 3)
    written = tmp_path / "tuned.toml"
    arguments = ["tune", "--bundle", str(bundle_path), "--seconds", "0.05"]
    assert main([*arguments, "--json", "--write", str(written)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["bundle"], found["provider"], found["processors"]) == ("tiny", "CPUExecutionProvider", 2)
    assert {point["threads"] for point in found["points"]} == {1, 2}
    assert all(point["images_per_s"] == 1000 * point["batch"] / point["batch_ms"] for point in found["points"])
    assert [crowd["workers"] for crowd in found["crowds"]] == [1, 2]
    settings = tomllib.loads(written.read_text(encoding="utf-8"))
    assert settings["device"] == "cpu"
    assert (settings["threads"], settings["max_batch"]) == (found["threads"], found["max_batch"])
    Settings.build({}, settings)  # each key is a setting, each value in its range

    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert text.startswith("tiny on CPUExecutionProvider, 2 processor(s)")
    assert text.count("<- one process") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seconds", "0"], "--seconds: expected a number above 0, at most 3600, got 0"),
        (["--seconds", "nan"], "--seconds: expected a number above 0"),
        (["--write", "{folder}"], "exists already; choose another name"),
        (["--write", "{folder}/none/x.toml"], "none: expected a folder that exists"),
        (["--bundle", "nope"], "nope: no such bundle directory"),
    ],
    ids=str,
)
def test_a_mistake_is_told_before_anything_is_measured(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    bundle_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuning, "Engine", None)
    status = main(["tune", "--bundle", str(bundle_path), *(text.format(folder=tmp_path) for text in arguments)])
    said = capsys.readouterr()
    assert (status, said.out) == (1, "")
    assert says in said.err
    assert said.err.count("\n") == 1


def test_a_file_that_cannot_be_written_is_one_line(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written, real = tmp_path / "tuned.toml", Path.open

    def refused(path: Path, *arguments: Any, **named: Any) -> object:
        if path == written:
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **named)

    monkeypatch.setattr(tuning, "HAND_OVERS", 3)
    monkeypatch.setattr(Path, "open", refused)
    assert main(["tune", "--bundle", str(bundle_path), "--seconds", "0.02", "--write", str(written)]) == 1
    assert capsys.readouterr().err == f"advsentry: error: --write: {written}: cannot be written: Permission denied\n"
