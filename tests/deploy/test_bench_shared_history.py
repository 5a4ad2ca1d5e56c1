"""The benchmark of the shared history runs against a real Redis, and its file is one of docs/results."""

import json
import shutil
from pathlib import Path

import pytest

from deploy import bench_shared_history
from deploy.results import FIELDS

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="there is no redis-server here (Debian: apt-get install redis-server)"
)
NAMES = ("us", "call_ms", "call_p99_ms")
COUNTS = ("commands", "in_bytes", "out_bytes", "redis_us")


@needs_redis
def test_every_figure_comes_from_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("redis", reason="the package redis (the extra `redis`) is not installed")
    result = tmp_path / "shared-history.json"
    assert bench_shared_history.main(["--entries", "400", "--queries", "64", "--result", str(result)]) == 0
    figures = json.loads(capsys.readouterr().out)
    expected = {f"batch_{size}_{name}" for size in (1, 32) for name in NAMES + COUNTS}
    expected |= {f"batch_{size}_alone_{name}" for size in (1, 32) for name in NAMES}
    expected |= {"reader_out_bytes", "reader_polls_per_s", "entry_bytes", "replica_bytes"}
    assert set(figures) == expected | {"catch_up_entries", "catch_up_s", "catch_up_us"}
    assert figures["catch_up_entries"] == 400
    assert 900 < figures["batch_32_in_bytes"] < 1200
    assert 900 < figures["reader_out_bytes"] < 1200
    assert 900 < figures["entry_bytes"] < 2000
    assert 4 <= figures["batch_1_commands"] < 5
    assert 35 / 32 <= figures["batch_32_commands"] < 2
    written = json.loads(result.read_text(encoding="utf-8"))
    assert set(FIELDS) == written.keys()
    assert written["metrics"] == figures


def test_without_a_server_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert bench_shared_history.main(["--entries", "400", "--queries", "64"]) == 1
    assert "apt-get install redis-server" in capsys.readouterr().err
