"""The benchmark of bulk scoring runs, and its figures follow from each other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow (the extra `score`) is not installed")

from deploy.results import FIELDS
from tests import tiny

ROOT = Path(__file__).parent.parent.parent


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "deploy.bench_score", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_the_figures_come_from_one_run(tmp_path: Path) -> None:
    bundle, result = tiny.write(tmp_path / "tiny"), tmp_path / "score.json"
    done = bench("--bundle", str(bundle), "--images", "300", "--seconds", "0.2", "--json", "--result", str(result))
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    ceiling = figures["tiny_cores"] / (1 / figures["tiny_bare_images_per_s"] + 1 / figures["tiny_decode_images_per_s"])
    assert figures["tiny_ceiling_images_per_s"] == pytest.approx(ceiling)
    for name in ("folder", "tar"):
        assert figures[f"tiny_{name}_images_per_s"] > 0
        assert figures[f"tiny_{name}_ratio_to_ceiling"] == pytest.approx(figures[f"tiny_{name}_images_per_s"] / ceiling)
    written = json.loads(result.read_text(encoding="utf-8"))
    assert set(FIELDS) == written.keys()
    assert written["metrics"] == figures


def test_an_unknown_bundle_is_one_clear_line() -> None:
    done = bench("--bundle", "nope")
    assert done.returncode == 1
    assert done.stderr.startswith("bench_score: error: nope: no such bundle directory")
