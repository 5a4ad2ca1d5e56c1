"""deploy.loadtest.fleet counts a fleet from measured figures, and docs/capacity.md says what it found."""

import json
from pathlib import Path

import pytest

from deploy.loadtest import fleet as command
from deploy.loadtest import page, sizing
from deploy.loadtest.sizing import CLIENTS, Assumed, fleet
from service.errors import SetupError

SERVING = {
    "b_session_us": 800.0,
    "b_detect_server_us": 1250.0,
    "b_detect_rate": 720.0,
    "b_batch_server_us": 900.0,
    "b_stream_server_us": 1000.0,
    "b_max_batch": 16.0,
    "b_resident_mb": 150.0,
}
ASSUMED = Assumed(
    images_per_day=86.4e6,
    peak=2.0,
    zones=3,
    objective_ms=250.0,
    deadline_s=1.0,
    cores_per_pod=2,
    skew=1.0,
    history_s=3600.0,
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "SIMULATED_S", 1.0)
    monkeypatch.setattr(sizing, "MOST_SIMULATED", 8)


def test_a_fleet_is_what_its_parts_multiply_to() -> None:
    found = fleet("b", ASSUMED, {"serving": SERVING, "reliability": {"R-19_series": 200.0}})
    assert 0.9 < found["share_simulated"] < 1
    share = found["share_measured"]
    assert share == pytest.approx(720 / 800)
    assert found["peak_images_per_s"] == 2 * found["mean_images_per_s"] == 2000
    assert found["cores_detect"] == pytest.approx(2000 * 0.00125 / share * 1.5)
    assert found["cores_stream_all_day"] == pytest.approx(1000 * 0.001 * 1.5)
    assert found["pods"] == -(-found["cores_detect"] // 2)
    assert found["memory_gb"] == pytest.approx(found["pods"] * 2 * 0.15)
    assert found["detect_beside_graph_us"] == 450
    assert found["series"] == 200 * found["pods"]
    assert found["history_entries"] == 2000 * 3600
    assert (found["by_call_refused"], found["balanced_processes"]) == (0, 6)
    assert "model_p99_ms" not in found


def test_the_history_takes_what_was_measured_with_the_most_kept_queries() -> None:
    measured = {
        **{f"most_bytes_at_{kept}": size for kept, size in ((1000, 1500.0), (20_000, 1000.0))},
        **{f"ms_in_32_at_{kept}": spent for kept, spent in ((1000, 0.1), (20_000, 0.25))},
    }
    found = fleet("b", ASSUMED, {"serving": SERVING, "history": measured})
    assert found["history_kept_when_measured"] == 20_000
    assert found["history_gb"] == pytest.approx(2000 * 3600 * 1000 / 1e9)
    assert found["history_cores"] == pytest.approx(2000 * 0.25e-3)
    assert any("| 7 |" in row and "1,000 bytes each" in row for row in page._history(found))
    without = fleet("b", ASSUMED, {"serving": SERVING})
    assert without["history_gb_for_each_100_bytes"] == pytest.approx(0.72)
    assert page._history(without) == ["| GB for each 100 bytes of an entry | 0.72 |"]


def test_gpus_are_counted_where_they_were_measured() -> None:
    rates = {"b_detect_32_images_per_s": 2000.0, "b_batch_images_per_s": 5e4, "b_stream_images_per_s": 1e4}
    found = fleet("b", ASSUMED, {"serving": SERVING, "gpu": {**rates, "b_stream_4_images_per_s": 2e4}})
    assert found["gpus_detect"] == pytest.approx(2000 / 2000 / 0.9 * 1.5)
    assert found["gpus_batch_all_day"] == pytest.approx(1000 / 5e4 * 1.5)
    assert found["gpus_stream_all_day"] == pytest.approx(1000 / 2e4 * 1.5)
    assert "gpus_detect" not in fleet("b", ASSUMED, {"serving": SERVING, "gpu": {"other": 1.0}})


def test_the_model_stands_beside_a_load_test() -> None:
    measured = {"capacity_per_s": 800.0, "constant_0.7_p50_ms": 3.0, "constant_0.7_p99_ms": 11.0}
    found = fleet("b", ASSUMED, {"serving": SERVING, "loadtest": measured})
    assert (found["measured_p50_ms"], found["measured_p99_ms"]) == (3, 11)
    assert 1.25 <= found["model_p50_ms"] < found["model_p99_ms"] < 250


def test_a_bundle_without_figures_is_named() -> None:
    with pytest.raises(SetupError, match=r"serving\.json has no figures of other"):
        fleet("other", ASSUMED, {"serving": SERVING})


def test_an_objective_that_no_process_keeps_is_refused() -> None:
    with pytest.raises(SetupError, match="takes longer than 1 ms"):
        fleet("b", Assumed(**{**vars(ASSUMED), "objective_ms": 1.0}), {"serving": SERVING})


def test_a_load_test_of_another_bundle_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "serving.json").write_text(json.dumps({"metrics": SERVING, "data": {}}))
    for name, expected in (("b", {"serving", "loadtest"}), ("c", {"serving"})):
        (tmp_path / "loadtest.json").write_text(json.dumps({"metrics": {}, "data": {name: "1"}}))
        assert command.load("b", tmp_path).keys() == expected
    with pytest.raises(SetupError, match=r"not there; run python -m deploy\.bench_serving"):
        command.load("b", tmp_path / "nowhere")


def test_the_command_writes_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tmp_path / "fleet.json"
    assert command.main(["--images-per-day", "1e8", "--result", str(result)]) == 0
    (tmp_path / "loadtest.json").write_text(
        json.dumps(
            {
                "command": "python -m deploy.loadtest",
                "commit": "abc",
                "machine": "some",
                "data": {"digits": "1"},
                "metrics": {
                    "capacity_per_s": 1234.0,
                    **{
                        f"steps_0.9_{name}": 0.5
                        for name in (
                            "offered_per_s",
                            "answered_per_s",
                            "refused_share",
                            "shed_share",
                            "failed_share",
                            "p50_ms",
                            "p99_ms",
                            "late_p99_ms",
                        )
                    },
                },
            }
        )
    )
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    text = page.current_page()
    found = json.loads(result.read_text("utf-8"))["metrics"]
    assert f"| {found['pods']:,.0f}; {found['memory_gb']:,.0f} |" in text
    assert all(f"| by connection, {clients} clients |" in text for clients in CLIENTS)
    assert "| steps 0.9 | 0 | 0 | 50.0% | 50.0% | 50.0% | 0.5 | 0.5 | 0.5 |" in text
    assert "mean of a day of 100,000,000" in text


def test_the_committed_page_is_what_the_script_makes() -> None:
    assert page.PAGE.read_text("utf-8") == page.current_page()


def test_a_page_without_its_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"capacity\.md: expected <!-- made by"):
        page.page("no marks", {"fleet": ""})


@pytest.mark.parametrize("arguments", [["--zones", "1"], ["--bundle", "nope"]])
def test_a_wrong_word_is_one_clear_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 1
    assert capsys.readouterr().err.startswith("fleet: error: ")
