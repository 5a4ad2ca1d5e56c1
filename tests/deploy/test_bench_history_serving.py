"""The benchmark of the service with and without a history: it runs, and its figures are what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.bench_history_serving import STEP
from deploy.bench_history_serving_figures import Figures, page_table, table
from deploy.load_once import WAYS, Turn
from deploy.results import FIELDS, page
from tests import tiny
from training.history.placing import place

ROOT = Path(__file__).parent.parent.parent
WITH_REPEATS = """
import sys
from deploy import bench_history_serving as bench

take = bench.DistinctImages.take

def with_repeats(images, count):
    found = take(images, count)
    found[-3:] = found[:3]
    return found

bench.DistinctImages.take = with_repeats
bench.MOST_WAIT_S = 2.0
sys.exit(bench.main())
"""
"""Three of the images that are taken at once come twice."""


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "deploy.bench_history_serving", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def test_every_server_sees_every_image_and_all_figures_come_from_one_run(tmp_path: Path) -> None:
    bundle, result = tiny.write(tmp_path / "tiny"), tmp_path / "history-serving.json"
    place(bundle, tiny.history(streams=199))  # as many as the default level takes
    done = bench("--quick", "--bundle", str(bundle), "--mode", "annotate", "--result", str(result))
    assert done.returncode == 0, done.stderr
    written = json.loads(result.read_text(encoding="utf-8"))
    assert set(FIELDS) == written.keys()
    assert written["data"]["quick"]
    metrics = written["metrics"]
    for way in WAYS:
        assert metrics[f"tiny_off_{way}_images_per_s"] > 0
        for server in ("observe", "full", "annotate"):
            name = f"tiny_{server}_{way}"
            rates = metrics[f"{name}_images_per_s"], metrics[f"tiny_off_{way}_images_per_s"]
            assert metrics[f"{name}_share"] == pytest.approx(rates[0] / rates[1])
            assert metrics[f"{name}_observed"] == 1
            assert metrics[f"{name}_server_us"] > 0
    assert metrics["tiny_full_entries"] == written["recipe"]["entries"]
    assert metrics["tiny_observe_entries"] == 3 * len(WAYS) * STEP  # two turns of each way before those that count
    assert "tiny Detect, 32 calls, annotate" in done.stdout
    assert "## history-serving" in page([written], {"history-serving": {"tiny_observe_detect_share": ">= 0.8"}})


def test_a_history_that_has_not_kept_what_it_saw_fails_the_run(tmp_path: Path) -> None:
    bundle = tiny.write(tmp_path / "tiny")
    place(bundle, tiny.history(streams=199))
    done = subprocess.run(
        [sys.executable, "-c", WITH_REPEATS, "--quick", "--bundle", str(bundle)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    assert "server `observe` was to have kept 2304 queries, and has 2277" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--bundle", "nope"], "nope: no such bundle directory"),
        (["--quick"], "tiny: expected a bundle with a calibration of the history, got none"),
        (["--quick", "--own-images"], "tiny: expected a bundle with its recipe in the manifest, got one without"),
    ],
)
def test_what_it_cannot_measure_is_one_clear_line(tmp_path: Path, arguments: list[str], line: str) -> None:
    bundle = [] if "--bundle" in arguments else ["--bundle", str(tiny.write(tmp_path / "tiny"))]
    done = bench(*arguments, *bundle)
    assert done.returncode == 1
    assert done.stderr.startswith(f"bench_history_serving: error: {line}")


def turn(rate: float, *, observed: int = 1000, client_share: float = 0.2, flagged: int = 0) -> Turn:
    return Turn(
        images=1000,
        seconds=1000 / rate,
        behind_s=0.1,
        server_us=1e6 / rate,
        client_share=client_share,
        observed=observed,
        unobserved=1000 - observed,
        late=0,
        flagged=flagged,
    )


def figures(off: list[Turn], observe: list[Turn]) -> Figures:
    rounds = [
        {(server, way): one for server, one in (("off", without), ("observe", with_it)) for way in WAYS}
        for without, with_it in zip(off, observe, strict=True)
    ]
    return Figures(max_batch=16, rounds=rounds, entries={"observe": 9000})


def test_a_share_is_the_median_of_the_shares_of_the_rounds() -> None:
    found = figures(
        [turn(1000.0), turn(500.0), turn(800.0)],
        [turn(900.0, flagged=30), turn(400.0), turn(560.0, observed=700)],
    ).metrics("b")
    assert found["b_observe_detect_share"] == pytest.approx(0.8)  # of 0.9, 0.8 and 0.7; not 560 / 800
    assert found["b_observe_detect_share_least"] == pytest.approx(0.7)
    assert found["b_observe_detect_share_most"] == pytest.approx(0.9)
    assert found["b_observe_detect_cpu_share"] == pytest.approx(0.8)
    assert found["b_observe_detect_observed"] == pytest.approx(0.9)
    assert found["b_observe_flagged"] == pytest.approx(0.01)
    assert found["b_observe_entries"] == 9000
    assert "b_off_detect_share" not in found


def test_the_table_tells_what_the_history_did_not_see_and_when_the_client_was_what_limits() -> None:
    shown = table("b", figures([turn(1000.0, client_share=0.95)], [turn(700.0, observed=600)]))
    row = next(line for line in shown.splitlines() if line.startswith("b BatchDetect of 64, a call each, observe"))
    assert "0.70 0.70 to 0.70" in row
    assert " 0.600 " in row
    assert "asked >= 0.80" in shown
    assert shown.splitlines()[-1].endswith("detect off; batch off; stream off")


def test_the_page_shows_the_shares_of_each_bundle() -> None:
    metrics = figures([turn(1000.0)], [turn(700.0)]).metrics("b")
    result = {"metrics": metrics, "machine": "a machine", "commit": "c0ffee", "command": "a command"}
    made = page_table(result)
    assert "| b, begins empty | 0.70 | 0.70 | 0.70 | 1.000 |" in made
    assert "* a machine; commit c0ffee; `a command`" in made
