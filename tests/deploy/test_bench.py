"""The benchmark runs, and says what it lacks."""

import json
import subprocess
import sys
from pathlib import Path

from deploy.bench import LOADS
from deploy.results import FIELDS, page
from tests import tiny

ROOT = Path(__file__).parent.parent.parent


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "deploy.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_every_figure_comes_from_one_run(tmp_path: Path) -> None:
    bundle, result = tiny.write(tmp_path / "tiny"), tmp_path / "bench.json"
    done = bench("--bundle", str(bundle), "--seconds", "0.2", "--json", "--result", str(result))
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    for name in ("bare", *LOADS):
        assert figures[f"tiny_{name}_images_per_s"] > 0
    for name in LOADS:
        assert figures[f"tiny_{name}_server_us"] > 0
        rates = figures[f"tiny_{name}_images_per_s"], figures["tiny_bare_images_per_s"]
        assert figures[f"tiny_{name}_ratio_to_bare"] == rates[0] / rates[1]
    assert figures["tiny_detect_1_p99_ms"] >= figures["tiny_detect_1_p50_ms"] > 0
    written = json.loads(result.read_text(encoding="utf-8"))
    assert set(FIELDS) == written.keys()
    assert written["metrics"] == figures
    assert "## bench" in page([written], {"bench": {"tiny_stream_ratio_to_bare": ">= 0.7"}})


def test_the_table_names_the_bundle_in_each_row_and_what_was_asked(tmp_path: Path) -> None:
    done = bench("--bundle", str(tiny.write(tmp_path / "tiny")), "--seconds", "0.2")
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()[3:]
    assert len(rows) == 2 + len(LOADS)
    assert all(row.startswith("tiny ") for row in rows)
    assert [">= 0.70" in row for row in rows].count(True) == 1


def test_an_unknown_bundle_is_one_clear_line() -> None:
    done = bench("--bundle", "nope")
    assert done.returncode == 1
    assert done.stderr.startswith("bench: error: nope: no such bundle directory")
