"""deploy.loadtest sends what a profile says, and tells what became of it."""

import json
import socket
from pathlib import Path

import numpy as np
import pytest

from deploy.loadtest.__main__ import main
from deploy.loadtest.figures import figures, flat, table
from deploy.loadtest.profiles import PROFILES, Phase, due, phases
from deploy.loadtest.sending import Sent
from deploy.open_loop import Arrivals
from deploy.results import FIELDS
from tests import tiny


@pytest.mark.parametrize("kind", ["constant", "poisson"])
def test_calls_come_at_the_rate_of_their_phase(kind: Arrivals) -> None:
    plan = [Phase(name="slow", rate=100, seconds=10), Phase(name="fast", rate=1000, seconds=2)]
    moments, numbers = due(plan, kind, 0)
    assert (np.diff(moments) >= 0).all()
    assert (moments[numbers == 0] < 10).all()
    assert ((moments[numbers == 1] >= 10) & (moments[numbers == 1] < 12)).all()
    assert np.bincount(numbers) == pytest.approx([1000, 2000], rel=0.1)


def test_a_profile_is_made_of_shares() -> None:
    assert [(phase.rate, phase.seconds) for phase in phases("burst", 200, 10)] == [(100, 10), (1000, 5), (100, 15)]
    assert all(len({name for name, _, _ in profile}) == len(profile) for profile in PROFILES.values())


def test_refusals_what_is_shed_and_failures_are_told_apart_and_have_no_latency() -> None:
    plan = [Phase(name="a", rate=4, seconds=1), Phase(name="b", rate=1, seconds=2)]
    sent = Sent(
        due_s=np.array([0.0, 0.1, 0.2, 0.4, 0.6, 1.5]),
        late_ms=np.array([0.0, 1.0, 0.0, 0.0, 0.0, 5.0]),
        latency_ms=np.array([10.0, 30.0, np.nan, np.nan, np.nan, np.nan]),
        queue_ms=np.array([1.0, 3.0, np.nan, np.nan, np.nan, np.nan]),
        codes=["OK", "OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"],
        client_share=0.1,
    )
    first, second = figures(sent, np.array([0, 0, 0, 0, 0, 1]), plan)
    assert (first.offered_per_s, first.answered_per_s) == (5, 2)
    assert (first.refused_share, first.shed_share, first.failed_share) == (0.2, 0.2, 0.2)
    assert (first.p50_ms, first.max_ms, first.queue_p95_ms) == pytest.approx((20, 30, 2.9))
    assert (second.failed_share, second.answered_per_s, second.p99_ms, second.late_p99_ms) == (1, 0, 0, 5)
    assert flat("x", plan, [first, second])["x_b_failed_share"] == 1
    assert len(table("x", plan, [first, second]).splitlines()) == 3


def test_a_server_is_loaded_and_the_figures_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, result = tmp_path / "out" / "load.svg", tmp_path / "loadtest.json"
    bundle = str(tiny.write(tmp_path / "tiny"))
    # the default 16 connections: of the 256 streams of one, gRPC refuses some while ended ones are not released yet
    arguments = ["--bundle", bundle, "--seconds", "0.15", "--deadline-s", "30"]
    assert main([*arguments, "--picture", str(picture), "--result", str(result)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line} >= PROFILES.keys()
    written = json.loads(result.read_text("utf-8"))
    assert written.keys() == set(FIELDS)
    metrics = written["metrics"]
    assert metrics["capacity_per_s"] > 0
    for profile, plan in PROFILES.items():
        for name, _, _ in plan:
            assert metrics[f"{profile}_{name}_failed_share"] == 0
    assert metrics["steps_0.25_answered_per_s"] > 0
    assert metrics["steps_0.25_p99_ms"] >= metrics["steps_0.25_p50_ms"] > 0
    drawn = picture.read_text("utf-8")
    assert drawn.count('<g id="axes_') == 2 * len(PROFILES)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "127.0.0.1:1"], "--target and --rate go together"),
        (["--rate", "5"], "--target and --rate go together"),
        (["--bundle", "nope"], "nope: no such bundle directory"),
        (["--target", "127.0.0.1:1", "--rate", "5", "--ca", "/nowhere"], "/nowhere"),
    ],
)
def test_a_wrong_word_is_one_clear_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("loadtest: error: ")
    assert says in error
    assert len(error.splitlines()) == 1


def test_nobody_at_the_target_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("deploy.loadtest.sending.READY_S", 0.3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["--bundle", "digits", "--target", target, "--rate", "5", "--seconds", "0.1"]) == 1
    assert f"no server answers at {target}" in capsys.readouterr().err
