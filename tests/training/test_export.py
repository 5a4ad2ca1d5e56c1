"""From a run to a bundle: parity with torch, calibration of the graph that is served, refusals."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from service.detection.bundle import load_bundle
from service.detection.engine import Engine
from service.detection.types import Bytes8, Verdict
from service.errors import BundleError, SetupError
from service.history.calibration import Calibration as HistoryCalibration
from tests import tiny
from training.checkpoint import load_parts, load_run
from training.config import load_recipe
from training.detectors import DETECTORS
from training.evaluation.pairing import check_pair
from training.export import check_exportable, export
from training.fit import fit
from training.graph import BundleGraph, clean_views, torch_outputs
from training.history.pools import Pools
from training.lessons import kept_learned, lessons_of
from training.model_card import model_card
from training.parity import compare_outputs
from training.resizing import resize_bytes

QUICK = ["train.epochs=3", "attack.steps=1", "tla.weight=0.0", "train.threads=1"]


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    fit(load_recipe("digits", QUICK), None, path)
    return path


@pytest.fixture(scope="module")
def bundle_path(run_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "digits"
    export(run_path, path, data_root=None)
    return path


@pytest.fixture(scope="module")
def graph(run_path: Path) -> BundleGraph:
    run = load_run(run_path)
    parts = run.parts(None)
    clean = clean_views(run.model, parts.fit.images, parts.fit.labels, lessons_of(run, parts.train))
    return BundleGraph(run.model, [DETECTORS[name].fit(clean) for name in run.recipe.export.detectors])


def mixed_images(run_path: Path) -> Bytes8:
    """Clean test images and noisy ones, so that both verdicts occur."""
    test = load_run(run_path).parts(None).test.images[:64].copy()
    test[32:] ^= np.random.default_rng(0).integers(0, 128, test[32:].shape, dtype=np.uint8)
    return test


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_onnxruntime_agrees_with_torch(run_path: Path, bundle_path: Path, graph: BundleGraph, batch: int) -> None:
    images = mixed_images(run_path)[-batch:]
    engine = Engine.load(bundle_path, threads=1)
    theirs, ours = engine.graph.run(images), torch_outputs(graph, images)
    # float32 sums in another order: about 1e-6 of each term, and a distance sums tens of them
    parity = compare_outputs(ours, theirs)
    assert parity.labels == 0
    assert parity.logits < 1e-4
    assert parity.embedding < 1e-5
    assert parity.scores < 1e-3
    verdicts = [d.verdict for d in engine.detect(images, alpha=0.05)]
    p_values = engine.bundle.calibration.fused_p_values(ours.scores, ours.logits.argmax(axis=1))
    assert verdicts == [Verdict.ADVERSARIAL if p <= 0.05 else Verdict.CLEAN for p in p_values]
    if batch == 64:
        assert len(set(verdicts)) == 2


def test_the_calibration_is_that_of_the_exported_graph(run_path: Path, bundle_path: Path) -> None:
    engine = Engine.load(bundle_path, threads=1)
    parts = load_run(run_path).parts(None)
    scores = engine.graph.run(parts.calibration.images).scores
    np.testing.assert_allclose(np.sort(scores, axis=0).T, engine.bundle.calibration.detector_scores, rtol=1e-4)
    fused = np.sort(engine.bundle.calibration.fuse(engine.graph.run(parts.fusion.images).scores))
    np.testing.assert_allclose(fused, engine.bundle.calibration.fused_scores, rtol=1e-4)


def test_canaries_are_clean_and_adversarial_and_of_no_data_set(run_path: Path, bundle_path: Path) -> None:
    engine = Engine.load(bundle_path, threads=1)
    assert [c.verdict for c in engine.bundle.manifest.canaries] == [Verdict.CLEAN, Verdict.ADVERSARIAL]
    images = load_run(run_path).parts(None).train.images.astype(int)
    drawn = engine.canaries()[0][1].astype(int)
    assert np.abs(images - drawn).mean(axis=(1, 2, 3)).min() > 8


def test_two_exports_of_a_run_are_the_same_bytes(run_path: Path, bundle_path: Path, tmp_path: Path) -> None:
    again = export(run_path, tmp_path / "digits", data_root=None)
    assert again.manifest.files == load_bundle(bundle_path).manifest.files


def test_the_graph_says_nothing_of_the_machine_that_made_it(bundle_path: Path) -> None:
    content = (bundle_path / "model.onnx").read_bytes()
    assert str(Path(__file__).parent.parent.parent).encode() not in content
    assert b"site-packages" not in content


def test_a_recipe_may_ask_for_images_of_any_size(
    run_path: Path, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(run_path)
    resizes = dataclasses.replace(run.recipe, export=dataclasses.replace(run.recipe.export, resize=True))
    monkeypatch.setattr("training.export.load_run", lambda _: dataclasses.replace(run, recipe=resizes))
    made = export(run_path, tmp_path / "digits", data_root=None)
    assert made.resize == resize_bytes(made.manifest.input)
    assert made.graph == load_bundle(bundle_path).graph
    assert "Images of other sizes are stretched to 8 x 8" in (made.path / "model_card.md").read_text()
    assert load_bundle(bundle_path).resize is None
    assert "other sizes" not in (bundle_path / "model_card.md").read_text()


def test_the_card_and_the_report_say_that_nothing_is_measured_yet(bundle_path: Path) -> None:
    assert "Not evaluated yet" in (bundle_path / "model_card.md").read_text()
    assert '"evaluated": false' in (bundle_path / "report.json").read_text()


def test_the_card_names_detectors_that_know_attacks(bundle_path: Path) -> None:
    made = load_bundle(bundle_path)
    entry = dataclasses.replace(made.manifest.detectors[0], name="adversarial_sensor", kind="adversarial_sensor")
    card = model_card(dataclasses.replace(made.manifest, detectors=(entry,)), made.calibration)
    assert "**Attack-aware**: adversarial_sensor made attacked images" in card
    assert "Attack-aware" not in (bundle_path / "model_card.md").read_text()


def test_what_its_detectors_learned_is_kept_beside_the_run(run_path: Path, bundle_path: Path, tmp_path: Path) -> None:
    sha256 = load_bundle(bundle_path).manifest.files["model.onnx"].sha256
    kept = kept_learned(run_path, sha256)
    assert set(kept) == {"companion", "perturbation_sensor"}
    assert kept_learned(run_path, "0" * 64) == {}
    (tmp_path / "detectors").mkdir()
    (tmp_path / "detectors" / f"{sha256[:16]}.pt").write_bytes(b"no weights")
    with pytest.raises(SetupError, match="expected readable weights, got a damaged file; export the bundle again"):
        kept_learned(tmp_path, sha256)


def test_a_bundle_is_not_overwritten_unless_asked(run_path: Path, bundle_path: Path) -> None:
    with pytest.raises(BundleError, match="exists already; choose another --out, or replace it with --force"):
        export(run_path, bundle_path, data_root=None)


@pytest.mark.parametrize("replace", [False, True])
def test_a_place_that_is_taken_is_refused_before_the_run_is_read(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(BundleError, match="exists already; it is no bundle"):
        export(tmp_path / "no run", tmp_path / "mine", data_root=None, replace=replace)


def test_a_place_below_a_file_is_refused_before_the_run_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    place = tmp_path / "file" / "x" / "y"
    with pytest.raises(BundleError) as refused:
        export(tmp_path / "no run", place, data_root=None)
    assert str(refused.value) == (
        f"{place}: expected a place in a folder, got the file {tmp_path / 'file'} above it; choose another --out"
    )


def test_a_folder_that_is_no_bundle_is_never_replaced(run_path: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="it is no bundle"):
        export(run_path, tmp_path / "mine", data_root=None, replace=True)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_recipe_may_ask_for_other_detectors(
    run_path: Path, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(run_path)
    names = ("gaussian", "knn", "residual", "low_pass")
    asked = dataclasses.replace(run.recipe, export=dataclasses.replace(run.recipe.export, detectors=names))
    monkeypatch.setattr("training.export.load_run", lambda _: dataclasses.replace(run, recipe=asked))
    made = export(run_path, tmp_path / "digits", data_root=None)
    assert tuple(entry.name for entry in made.manifest.detectors) == names
    assert [c.verdict for c in made.manifest.canaries] == [Verdict.CLEAN, Verdict.ADVERSARIAL]
    weights = sum(one.numel() for one in run.model.parameters())
    more = len(made.graph) - len(load_bundle(bundle_path).graph)
    assert more < weights * 4 / 2  # the second pass of low_pass uses the weights of the first


def test_a_class_with_fewer_images_than_a_detector_needs_is_refused_before_training() -> None:
    recipe = load_recipe("digits", ["data.fit=20"])
    _, parts = load_parts(recipe, None)
    check_exportable(recipe, parts, 10)
    asked = dataclasses.replace(recipe, export=dataclasses.replace(recipe.export, detectors=("gaussian", "knn")))
    with pytest.raises(SetupError, match="class 0 has 2 images to fit detectors on, expected 3 or more"):
        check_exportable(asked, parts, 10)


def test_an_alpha_without_enough_images_names_the_recipe_key() -> None:
    recipe = load_recipe("digits", ["export.default_alpha=0.001"])
    _, parts = load_parts(recipe, None)
    with pytest.raises(
        SetupError, match=r"data\.fusion: expected at least 999 images for export\.default_alpha 0\.001"
    ):
        check_exportable(recipe, parts, 10)


def test_a_finished_run_is_exported_with_other_detectors(run_path: Path, tmp_path: Path) -> None:
    chosen = ['export.detectors=["softmax","spectrum"]', "export.default_alpha=0.05"]
    manifest = export(run_path, tmp_path / "other", data_root=None, overrides=chosen).manifest
    assert [entry.name for entry in manifest.detectors] == ["softmax", "spectrum"]
    assert manifest.default_alpha == manifest.training["export"]["default_alpha"] == 0.05
    check_pair(load_run(run_path), load_bundle(tmp_path / "other"))


def test_export_calibrates_the_query_history_unless_the_recipe_leaves_it_out(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def calibrated(engine: Engine, pools: Pools, *, level: float, seed: int) -> HistoryCalibration:
        asked.append(level)
        assert len(pools.calibration) > 0
        return tiny.history(engine.bundle.manifest.default_alpha, streams=19)

    monkeypatch.setattr("training.export.made_history", calibrated)
    made = export(run_path, tmp_path / "with", data_root=None, overrides=["export.history_level=0.05"])
    assert asked == [0.05]
    assert made.history is not None
    assert made.history.streams == 19
    assert export(run_path, tmp_path / "bare", data_root=None, overrides=["export.history_level=0"]).history is None
    assert asked == [0.05]


def test_export_says_why_a_bundle_has_no_query_history(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.export.LEAST_UNRELATED", 1000)
    assert export(run_path, tmp_path / "few", data_root=None).history is None
    assert "bundle without history.npz: expected 1000 images or tracks or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=5", r"train\.epochs: expected a key of \[export\], got one that the training of the run has se"),
        ("export.detector=knn", r"export\.detector: unknown key; the nearest known one is export\.detectors"),
        ('export.detectors=["nothing"]', r"export\.detectors: expected some of gaussian, .* got 'nothing'"),
    ],
    ids=["training", "key", "detector"],
)
def test_what_export_cannot_change_is_refused(run_path: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        export(run_path, tmp_path / "other", data_root=None, overrides=[override])
    assert not (tmp_path / "other").exists()
