"""The script that measures start, memory and kept graphs runs, and measures what it says."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from deploy import footprint
from deploy.footprint import deep_graph
from deploy.server_process import Server, serving
from service.client import Client
from service.detection.bundle import file_entries, load_bundle, write_bundle
from tests import tiny


def test_each_figure_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(footprint, "IMAGES", 20)
    monkeypatch.setattr(footprint, "SESSIONS", 1)
    result = tmp_path / "footprint.json"
    arguments = ["--bundle", str(tiny.write(tmp_path / "tiny")), "--starts", "1", "--layers", "3"]
    assert footprint.main([*arguments, "--result", str(result)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "tiny_start_s",
        "tiny_start_cpu_s",
        "tiny_resident_mb",
        "tiny_resident_mb_under_load",
        "tiny_session_ms",
        "tiny_session_kept_ms",
        "layers_3_session_ms",
        "layers_3_session_kept_ms",
    }
    assert all(value > 0 for value in found.values())
    assert found["tiny_resident_mb"] > 30  # an interpreter with numpy and onnxruntime
    assert json.loads(result.read_text(encoding="utf-8"))["metrics"] == found


def test_a_history_is_filled_where_the_bundle_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.write(tmp_path / "tiny")
    loaded = load_bundle(path)
    files = {name: (path / name).read_bytes() for name in loaded.manifest.files}
    files["history.npz"] = tiny.history(loaded.manifest.default_alpha, streams=999).to_bytes()
    write_bundle(path, replace(loaded.manifest, files=file_entries(files)), files, replace=True)
    monkeypatch.setattr(footprint, "IMAGES", 20)
    monkeypatch.setattr(footprint, "MOST_KEPT", 40)
    found = footprint._with_full_history("tiny", load_bundle(path))
    assert found["tiny_history_entries"] == 40
    assert found["tiny_resident_mb_full_history"] > 30


def test_a_server_takes_flags_and_ends_with_the_block(tmp_path: Path) -> None:
    with serving(tiny.write(tmp_path / "tiny"), "--max-batch", 2) as server, Client(server.target) as client:
        assert client.is_serving()
    assert not Path(f"/proc/{server.pid}").exists()


def test_memory_is_that_of_the_process() -> None:
    before = Server("", os.getpid(), 0).resident_bytes() / 1e6
    block = np.ones(100_000_000, np.uint8)
    assert 90 < Server("", os.getpid(), 0).resident_bytes() / 1e6 - before < 150
    del block


def test_the_graph_made_for_the_cache_has_layers_that_are_fused() -> None:
    session = ort.InferenceSession(deep_graph(2), providers=["CPUExecutionProvider"])
    image = np.zeros((1, footprint.CHANNELS, 8, 8), np.float32)
    assert session.run(None, {"images": image})[0].shape == image.shape


def test_an_unknown_bundle_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert footprint.main(["--bundle", "nope"]) == 1
    assert capsys.readouterr().err.startswith("footprint: error: nope: no such bundle directory")
