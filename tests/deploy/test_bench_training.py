"""The training benchmark runs, and its file is one of docs/results."""

import json
from pathlib import Path

import pytest

from deploy import bench_training
from deploy.bench_training import METHODS
from deploy.results import FIELDS, page

QUICK = ["--seconds", "0.01", "--batch", "16", "--width", "4", "--no-compile"]


def test_every_figure_comes_from_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "bench-training.json"
    assert bench_training.main([*QUICK, "--json", "--result", str(result)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert all(figures[f"{name}_images_per_s"] > 0 for name in (*METHODS, "at_contiguous"))
    assert all(figures[f"pgd_{steps}_ratio_to_bare"] > 0 for steps in (5, 10))
    written = json.loads(result.read_text(encoding="utf-8"))
    assert set(FIELDS) == written.keys()
    assert written["metrics"] == figures
    assert "| yes |" in page([written], {"bench-training": {"rounds": ">= 1"}})


def test_the_table_says_what_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_training.main(QUICK) == 0
    assert capsys.readouterr().out.count("<= 1.15") == 2
