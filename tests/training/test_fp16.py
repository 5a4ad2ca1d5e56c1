"""Bundles with a trunk in float16: what is in it, how far answers move, what is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from service.detection.bundle import Bundle, load_bundle
from service.detection.engine import Engine
from service.detection.graph import Graph, GraphShape
from service.detection.types import Bytes8
from service.errors import SetupError
from service.report import describe, info_json
from tests import tiny
from training.__main__ import main
from training.checkpoint import load_run
from training.evaluation.pairing import as_exported, check_pair
from training.evaluation.twin import torch_twin
from training.graph import BundleGraph, onnx_bytes
from training.halving import half_graph
from training.models import build_model
from training.parity import QuantisedParity, compare_quantised
from training.sections import ModelConfig


@pytest.fixture(scope="module")
def half(run_path: Path, exact: Bundle) -> Bundle:
    out = exact.path.with_name("digits-fp16")
    assert main(["export", str(run_path), "--out", str(out), "--fp16", "--like", str(exact.path)]) == 0
    return load_bundle(out)


@pytest.fixture(scope="module")
def images(run_path: Path) -> Bytes8:
    return np.ascontiguousarray(load_run(run_path).parts(None).test.images)


def types_of(model: bytes) -> tuple[onnx.GraphProto, dict[str, int]]:
    """A graph, and the type of each of its results, as onnx infers them."""
    found = onnx.shape_inference.infer_shapes(onnx.load_from_string(model), strict_mode=True, data_prop=True).graph
    return found, {one.name: one.type.tensor_type.elem_type for one in (*found.value_info, *found.output)}


def test_trunks_compute_in_float16_and_heads_in_float32(exact: Bundle, half: Bundle) -> None:
    graph, types = types_of(half.graph)
    weights = {one.name: one.data_type for one in graph.initializer}
    convolutions = [types[node.output[0]] for node in graph.node if node.op_type == "Conv"]
    found = half.manifest.quantised
    assert found is not None
    assert convolutions.count(TensorProto.FLOAT16) == found.quantised_convolutions == 10
    assert len(convolutions) == found.convolutions == 11  # that of the residuals is the other one
    gemms = [types[node.output[0]] for node in graph.node if node.op_type == "Gemm"]
    assert sorted(gemms) == [TensorProto.FLOAT] * 3 + [TensorProto.FLOAT16] * 2  # heads; projections
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert {weights[name] for name in node.input[1:]} == {types[node.output[0]]}
    others = {node.op_type for node in graph.node if types.get(node.output[0]) == TensorProto.FLOAT16}
    assert others == {"Cast", "Conv", "Gemm", "Relu", "Reshape"}
    kept = {node.op_type for node in types_of(exact.graph)[0].node} - others
    assert kept <= {node.op_type for node in graph.node}
    assert len(half.graph) < 0.7 * len(exact.graph)
    assert half.graph_shape == exact.graph_shape


def test_answers_are_those_of_the_float_bundle_but_for_rounding(exact: Bundle, half: Bundle, images: Bytes8) -> None:
    engines = [Engine.load(bundle.path, threads=1) for bundle in (exact, half)]
    first, second = (engine.measure(images) for engine in engines)
    parity = compare_quantised(first.outputs, second.outputs)
    assert parity.label_agreement >= 0.99
    assert 0 < max(parity.score_shifts) < 0.01
    assert np.abs(first.fused_p_value - second.fused_p_value).mean() < 0.02
    assert [detection.verdict for detection in engines[1].detect(images[:50], alpha=0.05)]
    alone = np.concatenate([engines[1].graph.run(images[i : i + 1]).scores for i in range(5)])
    np.testing.assert_array_equal(alone, second.outputs.scores[:5])


def test_its_calibration_and_canaries_are_its_own(run_path: Path, exact: Bundle, half: Bundle) -> None:
    calibration = load_run(run_path).parts(None).calibration.images
    scores = Graph(half.graph, half.graph_shape, threads=1).run(calibration).scores
    np.testing.assert_array_equal(np.sort(scores, axis=0).T, half.calibration.detector_scores)
    assert (half.calibration.detector_scores != exact.calibration.detector_scores).any()
    assert half.calibration_id != exact.calibration_id
    assert [canary.verdict for canary in half.manifest.canaries] == ["clean", "adversarial"]
    Engine.load(half.path, threads=1)  # asks them


def test_it_says_how_it_was_made_and_how_far_scores_move(exact: Bundle, half: Bundle) -> None:
    found = half.manifest.quantised
    assert found is not None
    assert (found.precision, found.run) == ("float16", "digits-s7")
    assert found.float_graph == exact.manifest.files["model.onnx"].sha256
    assert half.manifest.default_alpha == exact.manifest.default_alpha == 0.05
    assert "float16 in 10 of 11 convolutions" in describe(half)
    assert info_json(half)["precision"] == "float16"
    card = (half.path / "model_card.md").read_text(encoding="utf-8")
    assert "**float16**: 10 of 11 convolutions compute in float16" in card
    for name, shift in found.score_shifts.items():
        assert 0 < shift < 0.01
        assert f"{name} {shift:.2g}" in card
    parity = json.loads((half.path / "report.json").read_text(encoding="utf-8"))["parity"]
    assert parity["score_shifts"] == found.score_shifts


def test_what_a_gpu_rounds_is_rounded_as_float16_rounds_it(exact: Bundle, images: Bytes8) -> None:
    made = half_graph(exact.graph, images)
    assert half_graph(exact.graph, images) == made
    assert b"/tmp" not in made.model
    rounded = onnx.load_from_string(made.rounded)
    (features,) = (node.input[0] for node in rounded.graph.node if node.output[0] == "relu_4")
    rounded.graph.output.append(helper.make_tensor_value_info(features, TensorProto.FLOAT, None))
    values = InferenceSession(rounded.SerializeToString()).run([features], {"images": images[:8]})[0]
    assert np.ptp(values) > 1
    np.testing.assert_array_equal(values, values.astype(np.float16))
    shape = exact.graph_shape
    scores = [Graph(model, shape, threads=1).run(images).scores for model in (exact.graph, made.model, made.rounded)]
    assert np.abs(scores[1] - scores[2]).max() > 0
    assert np.abs(scores[0] - scores[2]).max() < 0.05


NETWORKS = {
    "wide_resnet": ModelConfig(name="wide_resnet", width=1, depth=10),
    "lenet": ModelConfig(name="lenet"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_other_kinds_keep_their_answers(name: str) -> None:
    torch.manual_seed(0)
    network = build_model(NETWORKS[name], channels=3, height=16, width=16, classes=5)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as training leaves them, with small variances
            module.running_mean.normal_()
            module.running_var.uniform_(1e-6, 2)
            module.weight.data.uniform_(0.5, 1.5)
    images = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    model = onnx_bytes(BundleGraph(network, [Energy()]), images[:4])
    made = half_graph(model, images)
    assert made.half_convolutions == made.convolutions
    shape = GraphShape(height=16, width=16, channels=3, classes=5, embedding=network.head.in_features, detectors=1)
    exact, *others = (Graph(one, shape, threads=1).run(images) for one in (model, made.model, made.rounded))
    for one in others:
        scale = np.abs(exact.logits).max()
        assert 0 < np.abs(one.logits - exact.logits).max() < 0.01 * scale
        np.testing.assert_allclose(one.embedding, exact.embedding, atol=0.01)


class Energy(torch.nn.Module):
    """A detector of one line."""

    def forward(self, images: torch.Tensor, logits: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        return -torch.logsumexp(logits, dim=1)


def scaled(bundle: Bundle, factor: float) -> bytes:
    """Its graph with the first convolution's results so many times as large, and weights behind it as much less."""
    model = onnx.load_from_string(bundle.graph)
    weights = {one.name: one for one in model.graph.initializer}
    first, second = [
        node for node in model.graph.node if node.op_type == "Conv" and node.input[1].startswith("model.")
    ][:2]
    for name, by in ((first.input[1], factor), (first.input[2], factor), (second.input[1], 1 / factor)):
        weights[name].CopyFrom(numpy_helper.from_array(by * numpy_helper.to_array(weights[name]), name))
    return bytes(model.SerializeToString())


def test_values_that_float16_does_not_hold_are_refused(exact: Bundle, images: Bytes8) -> None:
    assert half_graph(scaled(exact, 2.0**4), images).largest < 16376
    with pytest.raises(SetupError, match=r"--fp16: expected weights and, on clean images, values of at most 16376"):
        half_graph(scaled(exact, 2.0**16), images)
    broken = onnx.load_from_string(exact.graph)
    weights = next(one for one in broken.graph.initializer if one.name.endswith("stages.0.weight"))
    values = numpy_helper.to_array(weights).copy()
    values[0] = np.nan
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    with pytest.raises(SetupError, match=r"got nan"):
        half_graph(broken.SerializeToString(), images)


def test_a_graph_without_a_trunk_is_refused() -> None:
    with pytest.raises(SetupError, match="--fp16: expected a convolution with constant weights and an activation"):
        half_graph(tiny.graph(), tiny.images(8))


@pytest.mark.parametrize(("agreement", "shift"), [(0.98, 0.0), (1.0, 0.06), (1.0, float("nan"))])
def test_answers_that_move_too_far_are_refused(agreement: float, shift: float) -> None:
    QuantisedParity(images=9, label_agreement=0.99, score_shifts=(0.05, 0.0)).check("--fp16", "float16")
    with pytest.raises(SetupError, match="--fp16: expected a graph in float16 to label at least 99%"):
        QuantisedParity(images=9, label_agreement=agreement, score_shifts=(0.0, shift)).check("--fp16", "float16")


def test_two_precisions_at_once_are_refused(run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", str(run_path), "--out", str(tmp_path / "made"), "--fp16"]
    assert main([*command, "--int8"]) == 1
    assert "--fp16: expected one precision, got '--int8 as well'" in capsys.readouterr().err
    assert main([*command, "--reduce-range"]) == 1
    assert "--reduce-range: expected --int8 beside it" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_the_pair_is_accepted_and_evaluated_as_transfer(run_path: Path, half: Bundle, tmp_path: Path) -> None:
    run = load_run(run_path)
    check_pair(run, half)
    torch_twin(as_exported(run, half), run.parts(None), Engine.load(half.path, threads=1))
    evaluate = ["evaluate", str(half.path), "--run", str(run_path), "--out", str(tmp_path)]
    assert main([*evaluate, "--budget", "quick", "--images", "8", "--attacks", "fgsm", "--non-adaptive"]) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert any(remark.startswith("Transfer: every attack was made on") for remark in report["remarks"])
