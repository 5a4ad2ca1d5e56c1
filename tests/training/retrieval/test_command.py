"""An embedding trained alone on digits: fit, retrieve, export; beside other methods; and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.results import FIELDS
from service.detection.graph import Graph, GraphShape
from service.errors import SetupError
from training.__main__ import main
from training.attacks.rounding import from_8_bit
from training.checkpoint import load_run
from training.class_centres import set_class_centres
from training.collapse import checked_spread
from training.config import load_recipe
from training.data import load_data
from training.data.batches import ImageSource
from training.data.classes import first_classes, other_classes
from training.data.types import DataSet, ImageSet
from training.export import export
from training.models import build_model
from training.retrieval.command import Options, retrieve
from training.sections import ModelConfig

TINY = (
    *("train.epochs=2", "train.batch_size=50", "train.threads=1", "data.train=300", "data.fit=60", "data.classes=6"),
    *("data.calibration=40", "data.fusion=40", "model.width=4", "model.embedding_dim=16", "attack.eps=0.1"),
    *("export.default_alpha=0.05", 'export.detectors=["gaussian","spectrum"]'),
)
ALONE = ("attack.name=none", "metric.weight=1", "metric.classification_weight=0", "tla.weight=0", "metric.steps=2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = [folder / f"alone-s{seed}" for seed in range(2)]
    for seed, path in enumerate(made):
        assert main(["fit", "digits", "--out", str(path), *TINY, *ALONE, f"train.seed={seed}"]) == 0
    return made


def retrieved(runs: list[Path], out: Path, *more: str) -> int:
    return main(["retrieve", *map(str, runs), "--out", str(out), "--queries", "40", "--quick", *more])


def test_it_writes_a_result_file_with_every_figure(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "tiny.json"
    assert retrieved(runs, out) == 0
    assert capsys.readouterr().out.startswith("quick run: do not quote these figures\nalone-mean: benign_r1 ")
    kept = json.loads(out.read_text(encoding="utf-8"))
    assert kept.keys() == {*FIELDS, "runs"}
    assert kept["command"].endswith(f"--out {out} --queries 40 --steps 50 --restarts 2 --seed 0 --quick")
    unseen = (load_data("digits", None).train.labels >= 6).sum()
    assert kept["data"] == {"set": "digits", "classes": "unseen", "images": unseen, "queries": 40, "quick": True}
    metrics = kept["metrics"]
    assert {name.split("/")[0] for name in metrics} == {"alone-mean", "alone-sd"}
    for run in ("alone-mean", "alone-sd"):
        for kind in ("benign", "away", "toward", "margin", "worst"):
            assert {f"{run}/{kind}_{figure}" for figure in ("r1", "r2", "map_r", "nmi")} <= metrics.keys()
    assert kept["runs"].keys() == {"alone-s0", "alone-s1"}
    for own in (run["metrics"] for run in kept["runs"].values()):
        for figure in ("r1", "r2", "map_r", "nmi"):
            assert own[f"worst_{figure}"] <= min(own[f"{aim}_{figure}"] for aim in ("away", "toward", "margin"))
        assert own["worst_r1"] < own["benign_r1"] <= own["benign_r2"]


def test_the_same_seed_gives_the_same_figures(runs: list[Path], tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        assert retrieved(runs[:1], tmp_path / f"{name}.json", "--json") == 0
        found.append(json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["metrics"])
    assert found[0] == found[1]


def test_the_head_of_an_embedding_trained_alone_is_the_class_centres(runs: list[Path]) -> None:
    run = load_run(runs[0])
    train = run.parts(None).train
    images = from_8_bit(train.images)
    with torch.no_grad():
        logits, embedding = run.model.views(images)
    centres = torch.stack([embedding[torch.from_numpy(train.labels == label)].mean(dim=0) for label in range(6)])
    cosines = embedding @ torch.nn.functional.normalize(centres).T
    assert torch.equal(logits.argmax(dim=1), cosines.argmax(dim=1))
    assert (logits.argmax(dim=1).numpy() == train.labels).mean() > 0.5


def test_it_exports_and_the_bundle_gives_the_torch_answers(runs: list[Path], tmp_path: Path) -> None:
    bundle = export(runs[0], tmp_path / "bundle", data_root=None)
    run = load_run(runs[0])
    images = run.parts(None).test.images[:20]
    shape = GraphShape(height=8, width=8, channels=1, classes=6, embedding=16, detectors=2)
    found = Graph(bundle.graph, shape, threads=1).run(images)
    with torch.no_grad():
        logits, embedding = run.model.views(from_8_bit(images))
    np.testing.assert_allclose(found.logits, logits.numpy(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.embedding, embedding.numpy(), rtol=1e-3, atol=1e-4)
    assert bundle.manifest.training["metric"]["classification_weight"] == 0


def test_a_collapsed_run_stops_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*TINY, *ALONE, "metric.least_distance=1.9")
    assert main(["fit", "digits", "--out", str(tmp_path / "run"), *words]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "epoch 1: expected a mean distance of at least 1.9 (metric.least_distance) between" in message
    assert "the embedding has collapsed to one point. Raise metric.warmup_epochs" in message


def test_the_monitor_sees_a_network_that_answers_alike() -> None:
    model = build_model(ModelConfig(width=4, embedding_dim=8), 1, 8, 8, classes=4)
    source = ImageSource(load_data("digits", None).train, torch.device("cpu"))
    assert checked_spread(model, source, 0.0, 3)["embedding_distance"] > 0
    with torch.no_grad():
        for parameter in model.projection.parameters():  # type: ignore[union-attr]
            parameter.zero_()
        model.projection[1].bias.fill_(1.0)  # type: ignore[index, union-attr]
    with pytest.raises(SetupError, match=r"epoch 3: .* got 0 \(variance 0\): the embedding has collapsed"):
        checked_spread(model, source, 0.01, 3)
    assert model.training


def test_class_centres_leave_embedding_and_mode_alone() -> None:
    model = build_model(ModelConfig(width=4, embedding_dim=8), 1, 8, 8, classes=10)
    before = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("head")}
    set_class_centres(model, ImageSource(load_data("digits", None).train, torch.device("cpu")))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert model.training
    lengths = model.head.weight.detach().norm(dim=1)
    torch.testing.assert_close(lengths, lengths[:1].expand(10))
    assert float(lengths[0]) > 0
    assert not model.head.bias.any()


def test_classes_are_cut_into_those_of_training_and_the_others() -> None:
    whole = load_data("digits", None)
    first = first_classes(whole, 6)
    assert first.class_names == whole.class_names[:6]
    assert set(first.train.labels) == set(range(6))
    assert set(other_classes(whole, 6).labels) == {6, 7, 8, 9}
    assert first_classes(whole, 0) is whole
    with pytest.raises(SetupError, match=r"data\.classes: expected less than the 10 classes of digits, got 10"):
        first_classes(whole, 10)


@pytest.mark.parametrize(("tracks", "part"), [(False, "test"), (True, "train")])
def test_other_classes_come_from_the_split_that_knows_its_tracks(tracks: bool, part: str) -> None:
    def _images(value: int, *, has_tracks: bool) -> ImageSet:
        return ImageSet(
            images=np.full((4, 2, 2, 1), value, np.uint8),
            labels=np.array([0, 0, 1, 1], np.int64),
            tracks=np.arange(4, dtype=np.int64) if has_tracks else None,
        )

    both = {"train": _images(1, has_tracks=tracks), "test": _images(2, has_tracks=False)}
    found = other_classes(DataSet(name="made up", class_names=("a", "b"), **both), 1)
    assert found.labels.tolist() == [1, 1]
    assert (found.images == both[part].images[0]).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"queries": 1}, r"--queries: expected at least 2, got 1"),
        ({"steps": 0}, r"--steps: expected at least 1, got 0"),
        ({"eps": -1.0}, r"--eps: expected a number above 0"),
        ({"out": Path("x.txt")}, r"--out: expected a file NAME\.json"),
    ],
)
def test_bad_options_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        Options(**{"runs": (Path("run"),), "out": Path("x.json"), **changed})  # type: ignore[arg-type]


def test_runs_that_do_not_belong_together_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"expected runs of different names, got alone-s0 twice"):
        retrieve(Options(runs=(runs[0], runs[0]), out=tmp_path / "x.json"))
    other = tmp_path / "other"
    assert main(["fit", "digits", "--out", str(other), *TINY, *ALONE, "train.epochs=1", "attack.eps=0.2"]) == 0
    with pytest.raises(SetupError, match=r"expected attack\.eps 0\.1 as .*alone-s0 has, got 0\.2; search apart"):
        retrieve(Options(runs=(runs[0], other), out=tmp_path / "x.json"))


def test_a_run_of_all_classes_is_searched_in_its_test_part(tmp_path: Path) -> None:
    words = (*TINY, *ALONE, "data.classes=0", "train.epochs=1")
    assert main(["fit", "digits", "--out", str(tmp_path / "run"), *words]) == 0
    assert retrieved([tmp_path / "run"], tmp_path / "all.json") == 0
    data = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))["data"]
    assert (data["classes"], data["images"]) == ("seen", len(load_run(tmp_path / "run").parts(None).test))


def test_keys_without_effect_are_refused() -> None:
    with pytest.raises(SetupError, match=r"metric\.margin: expected metric\.weight to be above 0"):
        load_recipe("digits", ["metric.margin=0.3"])
    with pytest.raises(SetupError, match=r"metric\.steps: expected metric\.weight to be above 0"):
        load_recipe("digits", ["metric.steps=3"])
    with pytest.raises(SetupError, match=r"metric\.gamma: expected metric\.attack to be hardness"):
        load_recipe("digits", ["metric.weight=1", "metric.gamma=0.1"])
