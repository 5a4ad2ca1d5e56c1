"""The checks of the sheet find what they are there for: each against a server with a defect planted in it."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.reliability import fault_checks, load_checks
from deploy.reliability.check import Check, Judged, NotRun, Verdict
from deploy.reliability.heavy import write_heavy
from deploy.reliability.rig import Rig, Size
from deploy.reliability.sheet import SHEET
from tests import tiny

BY_NUMBER = {check.number: check for check in SHEET}
PLANTED = str(Path(__file__).parent / "planted.py")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("rig")
    bundle = tiny.write(folder / "tiny")
    resizing = tiny.write(folder / "resizing", resizes=True)
    heavy = write_heavy(folder / "heavy", bundle)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))  # for the processes with a defect
        yield Rig(size=Size.TEST, bundle=bundle, resizing=resizing, heavy=heavy, folder=folder)


def judged(number: str, rig: Rig) -> Judged:
    check = BY_NUMBER[number]
    try:
        return check.judged(check.run(rig), timed=False)
    except NotRun as error:
        pytest.skip(str(error))


def with_defect(rig: Rig, defect: str) -> Rig:
    return dataclasses.replace(rig, command=(sys.executable, PLANTED, defect))


@pytest.mark.parametrize("number", [check.number for check in SHEET if check.is_quick])
def test_the_server_passes(rig: Rig, number: str) -> None:
    found = judged(number, rig)
    assert found.verdict is Verdict.PASS, (found.missed, dict(found.figures))


def test_a_leak_is_found(rig: Rig) -> None:
    whole, leaking = judged("R-9", rig), judged("R-9", with_defect(rig, "leak"))
    assert "mb_per_100k_calls" in leaking.missed
    assert leaking.figures["mb_per_100k_calls"] > 10 * abs(whole.figures["mb_per_100k_calls"])


@pytest.mark.parametrize(
    ("number", "defect", "figure"),
    [
        ("R-5", "take", "malformed_taken"),
        ("R-11", "lose", "failed"),
        ("R-15", "cold", "first_call_cpu_of_steady"),
        ("R-16", "differ", "answers_differing"),
        ("R-18", "let_in", "otherwise_answered"),
        ("R-19", "miscount", "wrong_counters"),
        ("R-21", "run_late", "images_run_for_short_calls"),
    ],
)
def test_a_defect_is_found(rig: Rig, number: str, defect: str, figure: str) -> None:
    found = judged(number, with_defect(rig, defect))
    assert found.verdict is Verdict.FAIL
    assert figure in found.missed


def test_calls_that_never_came_prove_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_checks, "SHORT_S", 1e-9)
    monkeypatch.setattr(load_checks, "MOST_ROUNDS", 1)
    found = judged("R-21", rig)
    assert found.missed == ("short_calls_that_came",)


def test_a_hang_is_found(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fault_checks, "command", lambda fault, marker: (sys.executable, PLANTED, "hang", fault, str(marker))
    )
    found = judged("R-13", rig)
    assert "hung" in found.missed


def test_a_figure_that_was_not_measured_is_missed() -> None:
    check = Check(
        number="R-0", text="", asked={"errors": "= 0", "p99_ms": "<= 5"}, timed=frozenset({"p99_ms"}), run=dict
    )
    assert check.judged({"errors": 0}).missed == ("p99_ms",)
    assert check.judged({"errors": 0, "p99_ms": 9}).missed == ("p99_ms",)
    assert check.judged({"errors": 0, "p99_ms": 9}, timed=False).verdict is Verdict.PASS
    assert check.judged({"errors": 1, "p99_ms": 5}).missed == ("errors",)
