"""The benchmark beside other model servers runs without them, and its figures are what was measured."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy.bench_serving_figures import ASKED, Figures, Tried, table
from deploy.load import Load
from deploy.open_loop import OpenLoad, arrivals, highest_rate
from deploy.results import FIELDS, page
from deploy.serving_peers.oip import INFER, infer_calls
from deploy.serving_peers.systems import MLSERVER
from tests import tiny

ROOT = Path(__file__).parent.parent.parent


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "deploy.bench_serving", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def test_ours_and_the_session_are_measured_without_peers(tmp_path: Path) -> None:
    bundle, result = tiny.write(tmp_path / "tiny"), tmp_path / "serving.json"
    done = bench(
        "--bundle",
        str(bundle),
        "--seconds",
        "0.05",
        "--rounds",
        "1",
        "--max-batch",
        "8",
        "--no-peers",
        "--result",
        str(result),
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(result.read_text(encoding="utf-8"))
    assert set(FIELDS) == written.keys()
    metrics = written["metrics"]
    for way in ("stream", "batch", "detect"):
        assert metrics[f"tiny_{way}_images_per_s"] > 0
        assert metrics[f"tiny_{way}_ratio_to_session"] > 0
    assert metrics["tiny_constant_p99_ms"] >= metrics["tiny_constant_p50_ms"] > 0
    assert not any("mlserver" in name for name in metrics)
    assert "tiny Detect, 32 calls" in done.stdout
    assert "## serving" in page([written], {"serving": {"tiny_start_s": "<= 2"}})


def test_an_unknown_bundle_is_one_clear_line() -> None:
    done = bench("--bundle", "nope", "--no-peers")
    assert done.returncode == 1
    assert done.stderr.startswith("bench_serving: error: nope: no such bundle directory")


def load(rate: float, *, client_us: float = 100.0) -> Load:
    return Load(images_per_s=rate, server_us=1e6 / rate, loop_us=100.0, client_us=client_us, p50_ms=10.0, p99_ms=20.0)


def tried(text: str, rates: list[float], *, rate: float | None, client_us: float = 100.0) -> Tried:
    loads = [load(one, client_us=client_us) for one in rates]
    ratios = [one / 1000.0 for one in rates]
    return Tried(text=text, loads=loads, ratios=ratios, start_s=1.5, resident_mb=120.0, rate=rate)


def figures(**ways: Tried) -> Figures:
    tail = OpenLoad(p50_ms=2.0, p99_ms=5.0, failed=0, late_p99_ms=0.1, server_us=900.0, client_share=0.2)
    return Figures(max_batch=32, session_images_per_s=1000.0, session_us=990.0, tried=ways, tails={"constant": tail})


def test_what_is_kept_of_the_rounds_is_their_median_and_ratios_are_taken_round_by_round() -> None:
    found = figures(
        detect=tried("Detect", [600.0, 900.0, 700.0], rate=690.0),
        mlserver=tried("ml", [200.0, 300.0, 350.0], rate=230.0),
    ).metrics("b")
    assert found["b_detect_images_per_s"] == 700.0
    assert found["b_detect_ratio_to_session"] == 0.7
    assert found["b_detect_graph_share"] == pytest.approx(990.0 * 700.0 / 1e6)
    assert found["b_detect_images_to_mlserver"] == pytest.approx(3.0)  # of 3, 3 and 2; not 700 / 300
    assert found["b_detect_rate_to_mlserver"] == 3.0
    assert found["b_constant_p99_to_p50"] == 2.5
    assert "b_detect_rate_to_kserve" not in found


def test_the_table_shows_every_system_and_what_was_asked() -> None:
    shown = table(
        "b", figures(detect=tried("Detect", [700.0], rate=690.0), mlserver=tried("ml", [300.0], rate=230.0)), 50.0
    )
    assert "b bare session" in shown
    assert "b ml" in shown
    asked = [line for line in shown.splitlines() if "asked" in line]
    assert len(asked) == len(ASKED) - 2  # neither stream nor batch was tried
    assert "client's core was full" not in shown


def test_the_table_says_when_the_client_was_what_limits() -> None:
    shown = table("b", figures(detect=tried("Detect", [1000.0], rate=None, client_us=950.0)), 50.0)
    assert shown.splitlines()[-1].startswith("b: the client's core was full")


def test_arrivals_come_at_the_rate_that_was_asked_for() -> None:
    assert np.allclose(np.diff(arrivals("constant", 200.0, 2.0, 0)), 0.005)
    gaps = np.diff(arrivals("poisson", 200.0, 100.0, 0))
    assert np.isclose(gaps.mean(), 0.005, rtol=0.05)
    assert np.isclose(gaps.std(), 0.005, rtol=0.05)  # as an exponential law has it


def test_the_highest_rate_is_found_and_one_disturbed_probe_does_not_lower_it() -> None:
    disturbed = iter([True])

    def p99_ms(rate: float) -> float:
        return math.inf if rate > 730.0 or next(disturbed, False) else 10.0

    assert 730.0 - 1000 / 2**9 <= highest_rate(p99_ms, 1000.0, 50.0, 9) <= 730.0
    assert highest_rate(lambda _: 60.0, 1000.0, 50.0, 5) == 0.0


def test_infer_requests_are_what_a_client_of_the_protocol_writes() -> None:
    images = np.arange(2 * 20 * 20 * 1, dtype=np.uint8).reshape(2, 20, 20, 1)
    calls = infer_calls(images)
    assert calls.method == INFER
    messages = pytest.importorskip("tritonclient.grpc.service_pb2")
    read = messages.ModelInferRequest.FromString(calls.requests[1])
    assert (read.model_name, read.inputs[0].name, read.inputs[0].datatype) == ("advsentry", "images", "UINT8")
    assert list(read.inputs[0].shape) == [1, 20, 20, 1]
    assert list(read.raw_input_contents) == [images[1].tobytes()]


def test_mlserver_is_tried_with_and_without_batching_and_workers() -> None:
    assert {(which.workers, which.max_batch > 0) for which in MLSERVER} == {
        (0, False),
        (0, True),
        (1, False),
        (1, True),
    }
    assert len({str(which) for which in MLSERVER}) == len(MLSERVER)
