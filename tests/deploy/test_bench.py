"""The benchmark runs, and says what it lacks."""

import json
import subprocess
import sys
from pathlib import Path

from tests import tiny

ROOT = Path(__file__).parent.parent.parent


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "deploy.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_every_figure_comes_from_one_run(tmp_path: Path) -> None:
    done = bench("--bundle", str(tiny.write(tmp_path / "tiny")), "--seconds", "0.2", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    for name in ("bare", "stream", "batch", "detect_1", "detect_32"):
        assert figures[f"{name}_images_per_s"] > 0
    assert figures["detect_1_p99_ms"] >= figures["detect_1_p50_ms"] > 0


def test_an_unknown_bundle_is_one_clear_line() -> None:
    done = bench("--bundle", "nope")
    assert done.returncode == 1
    assert done.stderr.startswith("bench: error: nope: no such bundle directory")
