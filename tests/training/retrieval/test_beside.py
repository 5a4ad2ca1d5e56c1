"""Metric learning beside TLA and SAR."""

import json
from pathlib import Path

import numpy as np
import torch

from service.detection.graph import Graph, GraphShape
from tests.training.retrieval.test_command import TINY
from training.__main__ import main
from training.attacks.rounding import from_8_bit
from training.checkpoint import load_run
from training.export import export


def test_it_combines_with_tla_and_sar_and_exports(tmp_path: Path) -> None:
    beside = ("metric.weight=0.5", "metric.attack=hardness", "metric.ics_weight=0.5", "metric.steps=2")
    words = (*TINY, *beside, "sar.weight=0.02", "tla.pool=32", "train.epochs=1", "attack.steps=2")
    assert main(["fit", "digits", "--out", str(tmp_path / "run"), *words]) == 0
    bundle = export(tmp_path / "run", tmp_path / "bundle", data_root=None)
    run = load_run(tmp_path / "run")
    images = run.parts(None).test.images[:4]
    shape = GraphShape(height=8, width=8, channels=1, classes=6, embedding=16, detectors=2)
    logits = Graph(bundle.graph, shape, threads=1).run(images).logits
    with torch.no_grad():
        expected = run.model(from_8_bit(images)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8"))["embedding_distance"] > 0
