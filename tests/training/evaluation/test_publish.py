import dataclasses
import json
from pathlib import Path

import pytest

from service.detection.bundle import load_bundle
from service.errors import BundleError
from tests import tiny
from tests.training.evaluation import small
from training.evaluation.publish import MAX_REPORT_BYTES, publish
from training.evaluation.results import Report


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "tiny")


@pytest.fixture
def report(bundle: Path) -> Report:
    engine = tiny.engine(bundle)
    return small.report(engine, small.run(engine, (small.NOTHING,)))


def test_graph_and_calibration_stay_byte_for_byte(bundle: Path, report: Report) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    identity = load_bundle(bundle).calibration_id
    publish(bundle, report)
    after = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {
        "report.json",
        "manifest.json",
        "model_card.md",
    }
    loaded = load_bundle(bundle)
    assert loaded.calibration_id == identity
    assert loaded.manifest.metrics["nothing_auroc"] == 0.5
    assert loaded.manifest.metrics_command == report.provenance.command
    assert json.loads(after["report.json"])["attacks"][0]["name"] == "nothing"
    assert "| nothing_auroc | 0.5 |" in after["model_card.md"].decode()
    assert "No attack broke it" in after["model_card.md"].decode()
    publish(bundle, report)  # the same again


def test_a_damaged_bundle_is_refused_and_left_alone(bundle: Path, report: Report) -> None:
    damaged = (bundle / "model.onnx").read_bytes()[:-1] + b"x"
    (bundle / "model.onnx").write_bytes(damaged)
    with pytest.raises(BundleError, match=r"model\.onnx: changed since it was exported"):
        publish(bundle, report)
    assert (bundle / "model.onnx").read_bytes() == damaged


def test_the_report_of_another_bundle_is_refused(tmp_path: Path, report: Report) -> None:
    other = tiny.write(tmp_path / "other", n=199)
    with pytest.raises(BundleError, match="the report is about bundle"):
        publish(other, report)


def test_a_quick_report_is_refused(bundle: Path, report: Report) -> None:
    with pytest.raises(BundleError, match="quick run"):
        publish(bundle, dataclasses.replace(report, publishable=False))


def test_a_report_that_is_too_large_is_refused(bundle: Path, report: Report) -> None:
    with pytest.raises(BundleError, match="at most 500000 bytes"):
        publish(bundle, dataclasses.replace(report, remarks=("x" * MAX_REPORT_BYTES,)))
