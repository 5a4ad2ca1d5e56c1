"""The comparison of an int8 or fp16 bundle with its float one: ratios, AUROCs, and which pairs are refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from deploy.int8_check import (
    attack_metrics,
    check_made_of,
    differences,
    main,
)
from deploy.paired_speed import measured_speed, speed_metrics
from service.detection.bundle import Bundle, load_bundle
from service.detection.manifest import Quantised
from service.errors import SetupError
from training.evaluation.decisions import FUSED, Decisions


@pytest.fixture
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


def quantised(bundle: Bundle, of: str, precision: str = "int8") -> Bundle:
    how = Quantised(
        precision=precision,
        run="run",
        float_graph=of,
        convolutions=2,
        quantised_convolutions=1,
        calibration_images=10,
        reduced_range=False,
        compared_images=10,
        label_agreement=1.0,
        score_shifts={},
    )
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, quantised=how))


def decisions(labels: list[int], scores: list[float]) -> Decisions:
    values = np.array(scores)
    return Decisions(
        labels=np.array(labels),
        scores={FUSED: values},
        p_values={FUSED: values},
        ranked_in=np.zeros(len(labels), np.int64),
        row_sizes=np.array([100]),
    )


def test_a_graph_beside_itself_is_as_fast(bundle: Bundle) -> None:
    found = speed_metrics(measured_speed([bundle, bundle], rounds=5, seconds=0.002))
    assert 0.3 < found["ratio_lower_quartile"] <= found["ratio"] <= found["ratio_upper_quartile"] < 3
    assert found["images_per_cpu_s_int8"] > 0
    assert found["best_batch_float"] in (1, 8, 16, 32, 64)
    again = speed_metrics(measured_speed([bundle, bundle], rounds=1, seconds=0.002), ("float", "fp16"), "cuda")
    assert again["images_per_s_fp16"] > 0


def test_a_gpu_that_does_not_come_up_is_no_comparison(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SetupError, match="--device cuda: CUDAExecutionProvider does not come up"):
        measured_speed([bundle, bundle], device="cuda", rounds=1, seconds=0.001)


def test_aurocs_are_of_the_same_images_and_of_those_that_fool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.int8_check.LEAST_FOOLED", 2)
    truth = np.array([0, 0, 1, 1])
    clean = [decisions([0, 0, 1, 0], [1, 2, 3, 4]), decisions([0, 0, 1, 1], [1, 2, 3, 4])]
    attacked = [decisions([1, 1, 1, 0], [5, 6, 0, 7]), decisions([1, 0, 1, 1], [5, 6, 0, 7])]
    found = attack_metrics("pgd", clean, attacked, truth)
    assert found == {"pgd_auroc_float": 0.75, "pgd_auroc_int8": 0.75, "pgd_auroc_successful_float": 1.0}
    found |= {"mim_auroc_float": 0.5, "mim_auroc_int8": 0.4}
    assert differences(found) == pytest.approx({"mean_auroc_difference": -0.05, "worst_auroc_difference": -0.1})


def test_only_a_bundle_that_was_made_of_the_other_is_compared(
    bundle: Bundle, bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = bundle.manifest.files["model.onnx"].sha256
    assert check_made_of(bundle, quantised(bundle, graph)) == ("float", "int8")
    assert check_made_of(bundle, quantised(bundle, graph, "float16")) == ("float", "fp16")
    with pytest.raises(
        SetupError, match=r"expected a bundle that was made of the graph .* got one made of 00000000000"
    ):
        check_made_of(bundle, quantised(bundle, "0" * 64))
    assert main([str(bundle_path), str(bundle_path), "--run", str(tmp_path)]) == 1
    assert "of tiny, got a bundle in float32" in capsys.readouterr().err
