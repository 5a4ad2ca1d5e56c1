"""The benchmark of the query history runs, and its file is one of docs/results."""

import json
import os
from pathlib import Path

import pytest

from deploy import bench_history
from deploy.results import FIELDS, page


def test_every_figure_comes_from_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, processors = tmp_path / "history.json", os.sched_getaffinity(0)
    try:
        assert bench_history.main(["--kept", "300", "--queries", "64", "--result", str(result)]) == 0
    finally:
        os.sched_setaffinity(0, processors)
    figures = json.loads(capsys.readouterr().out)
    names = {"bytes", "most_bytes", "exact_ms", "recall", "half_recall", "replace_ms"}
    names |= {f"{kind}ms_in_{batch}" for kind in ("", "p99_", "full_", "full_p99_") for batch in (1, 8, 32)}
    fingerprints = {f"fingerprint_ms_in_{batch}" for batch in (1, 8, 32)}
    assert set(figures) == fingerprints | {f"{name}_at_300" for name in names}
    assert all(value > 0 for value in figures.values())
    assert figures["bytes_at_300"] < figures["most_bytes_at_300"]
    written = json.loads(result.read_text(encoding="utf-8"))
    assert set(FIELDS) == written.keys()
    assert written["metrics"] == figures
    assert "| yes |" in page([written], {"history": {"recall_at_300": ">= 0.9"}})
