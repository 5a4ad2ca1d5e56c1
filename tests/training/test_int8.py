"""Bundles in 8-bit integers: what is quantised, whose calibration it is, what is refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.detection.bundle import SHIPPED, Bundle, load_bundle
from service.detection.engine import Engine
from service.detection.graph import Graph, GraphShape
from service.detection.manifest import Manifest
from service.errors import BundleError, SetupError
from service.report import describe, info_json
from tests import tiny
from training.__main__ import main
from training.checkpoint import load_run, read_checkpoint, write_checkpoint
from training.evaluation.pairing import as_exported, check_pair
from training.evaluation.twin import torch_twin
from training.graph import torch_outputs
from training.model_card import model_card
from training.parity import QuantisedParity
from training.quantising import quantised_graph


@pytest.fixture(scope="module")
def rounded(run_path: Path, exact: Bundle) -> Bundle:
    """In 8 bits, made like it."""
    out = exact.path.with_name("digits-int8")
    assert main(["export", str(run_path), "--out", str(out), "--int8", "--like", str(exact.path)]) == 0
    return load_bundle(out)


def graph_of(bundle: Bundle) -> onnx.GraphProto:
    return onnx.load_from_string(bundle.graph).graph


def makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in graph.node for output in node.output}


def tensors(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in graph.initializer}


def test_convolutions_have_signed_weights_a_scale_a_channel_and_unsigned_activations(rounded: Bundle) -> None:
    graph = graph_of(rounded)
    made, values = makers(graph), tensors(graph)
    quantised = 0
    for node in graph.node:
        if node.op_type != "Conv" or made.get(node.input[1], node).op_type != "DequantizeLinear":
            continue
        quantised += 1
        weights, scale, zero = (values[name] for name in made[node.input[1]].input)
        assert weights.dtype == np.int8
        assert scale.shape == (weights.shape[0],)
        assert not zero.any()
        assert weights.shape[1] % 4 == 0
        assert values[made[node.input[0]].input[2]].dtype == np.uint8
    found = rounded.manifest.quantised
    assert found is not None
    assert quantised == found.quantised_convolutions
    assert 0 < quantised < found.convolutions


def test_everything_but_convolutions_stays_in_float(exact: Bundle, rounded: Bundle) -> None:
    kept = {"Conv", "Relu", "QuantizeLinear", "DequantizeLinear", "Pad", "Identity"}
    before = sorted(node.op_type for node in graph_of(exact).node if node.op_type not in kept)
    after = sorted(node.op_type for node in graph_of(rounded).node if node.op_type not in kept)
    assert set(after) <= set(before)
    assert after.count("Gemm") == before.count("Gemm") == 5  # projections and heads, of both networks and the sensor
    graph = graph_of(rounded)
    made, values = makers(graph), tensors(graph)
    for node in graph.node:
        if node.op_type == "Gemm":
            assert values[node.input[1]].dtype == np.float32
        if node.op_type == "Conv" and made.get(node.input[1], node).op_type != "DequantizeLinear":
            assert (
                np.prod(values[node.input[1]].shape[1:]) < 32
            )  # stems of grey images, and the residuals of the sensor


def test_the_calibration_is_that_of_the_quantised_graph(run_path: Path, exact: Bundle, rounded: Bundle) -> None:
    parts = load_run(run_path).parts(None)
    engine = Engine.load(rounded.path, threads=1)
    scores = np.sort(engine.graph.run(parts.calibration.images).scores, axis=0).T
    np.testing.assert_array_equal(scores, rounded.calibration.detector_scores)
    assert np.abs(rounded.calibration.detector_scores - exact.calibration.detector_scores).max() > 1e-3
    assert rounded.calibration_id != exact.calibration_id
    p_values = [detection.p_value for detection in engine.detect(parts.test.images, alpha=0.05)]
    assert 0.3 < np.mean(np.asarray(p_values)) < 0.7  # uniform on clean images: 0.5 on average


def test_its_canaries_are_answered_by_the_quantised_graph(rounded: Bundle) -> None:
    assert [canary.verdict for canary in rounded.manifest.canaries] == ["clean", "adversarial"]
    Engine.load(rounded.path, threads=1)  # asks them


def test_it_says_of_which_run_and_graph_it_was_made(exact: Bundle, rounded: Bundle) -> None:
    found = rounded.manifest.quantised
    assert found is not None
    assert found.run == "digits-s7"
    assert found.float_graph == exact.manifest.files["model.onnx"].sha256
    assert rounded.manifest.default_alpha == exact.manifest.default_alpha == 0.05
    assert set(found.score_shifts) == {"companion", "centroid_margin", "perturbation_sensor"}
    assert f"made of the graph {found.float_graph[:12]}" in describe(rounded)
    assert info_json(rounded)["precision"] == "int8"
    assert info_json(exact)["precision"] == "float32"
    card = (rounded.path / "model_card.md").read_text(encoding="utf-8")
    assert f"SHA-256 `{found.float_graph}` of the run `digits-s7`" in card
    assert "Precision" not in (exact.path / "model_card.md").read_text(encoding="utf-8")
    parity = json.loads((rounded.path / "report.json").read_text(encoding="utf-8"))["parity"]
    assert parity["label_agreement"] == found.label_agreement > 0.95
    narrow = dataclasses.replace(rounded.manifest, quantised=dataclasses.replace(found, reduced_range=True))
    assert "7-bit weights" in model_card(narrow, rounded.calibration)


def test_the_same_graph_gives_the_same_bytes_which_say_nothing_of_the_machine(
    run_path: Path, exact: Bundle, rounded: Bundle
) -> None:
    again = quantised_graph(exact.graph, load_run(run_path).parts(None).fit.images).model
    assert again == rounded.graph
    assert b"/tmp" not in again
    domains = {entry.domain for entry in onnx.load_from_string(again).opset_import}
    assert domains == {node.domain for node in graph_of(rounded).node}


@pytest.mark.parametrize(("reduce_range", "largest"), [(False, 127), (True, 64)])
def test_weights_have_seven_bits_only_where_that_is_asked_for(
    exact: Bundle, run_path: Path, reduce_range: bool, largest: int
) -> None:
    images = load_run(run_path).parts(None).fit.images
    made = onnx.load_from_string(quantised_graph(exact.graph, images, reduce_range=reduce_range).model).graph
    weights = [value for value in tensors(made).values() if value.dtype == np.int8 and value.ndim == 4]
    assert max(np.abs(value.astype(int)).max() for value in weights) == largest


def convolution(inputs: int, groups: int = 1) -> bytes:
    """A graph of two 3x3 convolutions with shared weights (8 outputs) and their sum after the first has been scaled."""
    draws = np.random.default_rng(0)
    weights = draws.normal(size=(inputs, inputs // groups, 3, 3)).astype(np.float32)
    spread = draws.normal(size=(inputs, 1, 1, 1)).astype(np.float32)
    same = {"pads": [1, 1, 1, 1], "group": groups}
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["channels_first"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels_first", "spread"], ["many"], name="stem"),
        helper.make_node("Conv", ["many", "weights"], ["first"], name="first", **same),
        helper.make_node("Relu", ["first"], ["active"], name="relu"),
        helper.make_node("Conv", ["active", "weights"], ["second"], name="second", **same),
        helper.make_node("Add", ["active", "second"], ["sum"], name="add"),
        helper.make_node("ReduceMean", ["sum", "axes"], ["logits"], name="mean", keepdims=0),
        helper.make_node("Identity", ["logits"], ["embedding"], name="embedding"),
        helper.make_node("Identity", ["logits"], ["scores"], name="scores"),
    ]
    made = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 8, 8, 1])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", inputs])
            for name in ("logits", "embedding", "scores")
        ],
        [
            numpy_helper.from_array(value, name)
            for name, value in {"weights": weights, "spread": spread, "axes": np.array([2, 3])}.items()
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def test_channels_in_fours_change_no_answer_where_weights_are_shared() -> None:
    images = tiny.images(40)
    made = quantised_graph(convolution(6), images)
    assert (made.convolutions, made.quantised_convolutions, made.images) == (3, 2, 40)
    shape = GraphShape(height=8, width=8, channels=1, classes=6, embedding=6, detectors=6)
    exact, rounded = (Graph(model, shape, threads=1).run(images).logits for model in (convolution(6), made.model))
    assert 0 < np.abs(exact - rounded).max() < 0.03 * np.ptp(exact)
    weights = [value for value in tensors(onnx.load_from_string(made.model).graph).values() if value.ndim == 4]
    assert sorted(value.shape for value in weights) == [(6, 1, 1, 1), (6, 8, 3, 3)]


@pytest.mark.parametrize(
    "model", [tiny.graph(), convolution(3), convolution(12, groups=6)], ids=["none", "few", "groups"]
)
def test_a_graph_without_large_convolutions_is_refused(model: bytes) -> None:
    with pytest.raises(SetupError, match="--int8: expected a convolution whose sums have 32 terms or more, got none"):
        quantised_graph(model, tiny.images(8))


def test_the_pair_is_accepted_and_evaluated_as_transfer(run_path: Path, rounded: Bundle, tmp_path: Path) -> None:
    evaluate = ["evaluate", str(rounded.path), "--run", str(run_path), "--out", str(tmp_path)]
    brief = ["--budget", "quick", "--images", "8", "--attacks", "fgsm", "--non-adaptive"]
    assert main([*evaluate, *brief]) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["threat_model"]["knowledge"].startswith("the classifier with all its weights in float32, of which")
    assert any(
        remark.startswith("Transfer: every attack was made on the float network") for remark in report["remarks"]
    )
    assert not any("is this the run" in remark for remark in report["remarks"])


def test_the_twin_of_a_quantised_bundle_is_its_float_network(run_path: Path, exact: Bundle, rounded: Bundle) -> None:
    run = load_run(run_path)
    check_pair(run, rounded)
    images = run.parts(None).test.images[:16]
    twins = [
        torch_twin(as_exported(run, bundle), run.parts(None), Engine.load(bundle.path, threads=1))
        for bundle in (exact, rounded)
    ]
    first, second = (torch_outputs(twin, images).scores for twin in twins)
    np.testing.assert_array_equal(first, second)


def test_a_run_with_other_weights_is_not_taken_for_the_pair(run_path: Path, rounded: Bundle, tmp_path: Path) -> None:
    content = read_checkpoint(run_path)
    weights = (content["loop"]["best_averaged"] or content["loop"]["best"] or content["loop"])["model"]
    weights["head.weight"] *= -1
    (tmp_path / "other").mkdir()
    write_checkpoint(tmp_path / "other", content)
    other = as_exported(load_run(tmp_path / "other"), rounded)
    with pytest.raises(SetupError, match="expected a graph in int8 to label at least 95% of the clean images"):
        torch_twin(other, other.parts(None), Engine.load(rounded.path, threads=1))


@pytest.mark.parametrize(("agreement", "shift"), [(0.94, 0.0), (1.0, 0.6)])
def test_a_graph_that_quantisation_has_broken_is_refused(agreement: float, shift: float) -> None:
    QuantisedParity(images=9, label_agreement=0.95, score_shifts=(0.5, 0.1)).check("--int8", "int8")
    with pytest.raises(SetupError, match="--int8: expected a graph in int8"):
        QuantisedParity(images=9, label_agreement=agreement, score_shifts=(0.1, shift)).check("--int8", "int8")


def test_wrong_use_is_refused(
    run_path: Path, exact: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(run_path), "--out", str(tmp_path / "made")]
    assert main([*command, "--reduce-range"]) == 1
    assert "--reduce-range: expected --int8 beside it" in capsys.readouterr().err
    assert main([*command, "--int8", "--like", "mnist"]) == 1
    assert "images of (8, 8, 1), but the bundle mnist takes (28, 28, 1)" in capsys.readouterr().err
    assert main([*command[:3], str(exact.path), "--int8"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*/manifest.json")), ids=lambda path: path.parent.name)
def test_manifests_that_ship_are_read_and_written_as_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert Manifest.from_json(text).to_json() == text


def test_what_a_manifest_says_of_quantisation_is_checked(rounded: Bundle) -> None:
    text = rounded.manifest.to_json()
    assert Manifest.from_json(text) == rounded.manifest
    fields = json.loads(text)
    for broken, message in (
        (None, r"manifest\.json: quantised: expected an object, got NoneType"),
        ({**fields["quantised"], "precision": 8}, r"quantised: precision: expected str, got 8"),
        ({**fields["quantised"], "bits": 8}, r"quantised: unknown field bits"),
        ({"precision": "int8"}, r"quantised: \w+ is missing"),
    ):
        with pytest.raises(BundleError, match=message):
            Manifest.from_json(json.dumps({**fields, "quantised": broken}))
