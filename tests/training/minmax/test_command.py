"""`advsentry-train minmax` on short runs of digits."""

import json
from pathlib import Path

import numpy as np
import pytest

from service.detection.bundle import find_bundle
from service.detection.engine import Engine
from service.detection.types import Verdict
from training.__main__ import main
from training.checkpoint import load_run
from training.config import SECTIONS

FIT = """
[data]
set = "digits"
train = 300
fit = 100
calibration = 20
fusion = 20
[model]
width = 4
depth = 1
[train]
epochs = 2
threads = 1
batch_size = 50
optimiser = "adam"
learning_rate = 0.01
[attack]
name = "none"
eps = 0.2
[export]
default_alpha = 0.05
"""
PERCEPTRON = ["model.name=perceptron", "model.width=16", "model.depth=2", "train.learning_rate=0.003"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    recipe = folder / "recipe.toml"
    recipe.write_text(FIT, encoding="utf-8")
    small, perceptron = str(folder / "small-s0"), str(folder / "perceptron-s0")
    assert main(["fit", str(recipe), "--out", small]) == 0
    assert main(["fit", str(recipe), "--out", perceptron, *PERCEPTRON]) == 0
    return small, perceptron


def test_an_ensemble_is_attacked_and_told_of(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, kept = tmp_path / "pair-s0.json", tmp_path / "kept" / "pair.npz"
    capsys.readouterr()
    words = ["--images", "12", "--steps", "5", "--weights", "0.25,0.75", "--keep", str(kept), "--json"]
    assert main(["minmax", "ensemble", *runs, "--out", str(out), *words]) == 0
    told, result = json.loads(capsys.readouterr().out), json.loads(out.read_text(encoding="utf-8"))
    metrics = result["metrics"]
    assert told == {"result": str(out), "metrics": {name: metrics[name] for name in told["metrics"]}}
    assert {"minmax_asr_small", "average_asr_perceptron", "fixed_asr_all", "held_asr_all", "asr_gain"} <= metrics.keys()
    assert metrics["minmax_weight_small"] + metrics["minmax_weight_perceptron"] == pytest.approx(1, abs=1e-5)
    assert (result["name"], result["seed"]) == ("pair-s0", 0)
    assert result["data"] == {
        "set": "digits",
        "split": "test",
        "test_images": result["data"]["test_images"],
        "attacked_images": 12,
        "experiment": "ensemble",
        "budget": "linf 0.2",
        "networks": ["small_cnn", "perceptron"],
    }
    assert result["recipe"].keys() == SECTIONS.keys()
    assert "name" not in result["recipe"]["model"]
    assert result["recipe"]["attack"]["eps"] == 0.2
    assert result["command"].endswith("--images 12 --steps 5 --weights 0.25,0.75 --seed 0")
    with np.load(kept) as arrays:
        assert arrays["minmax_images"].shape == (12, 8, 8, 1)
        assert arrays["minmax_images"].dtype == np.uint8
        assert arrays["minmax_weights"].shape == arrays["average_fails"].shape == (12, 2)
        assert arrays["minmax_fails"].all(axis=1).mean() == pytest.approx(metrics["minmax_asr_all"])
        assert arrays["domains"].tolist() == ["small", "perceptron"]


@pytest.mark.parametrize("norm", ["linf", "l0"])
@pytest.mark.parametrize("kind", ["universal", "transforms"])
def test_one_network_is_attacked_by_groups_and_through_transformations(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, norm: str
) -> None:
    out, kept = tmp_path / "one.json", tmp_path / "one.npz"
    words = ["--images", "10", "--group", "3", "--steps", "3", "--norm", norm, "--normalise", "--keep", str(kept)]
    assert main(["minmax", kind, runs[0], "--out", str(out), *words]) == 0
    assert "asr_gain" in capsys.readouterr().out
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["data"]["attacked_images"] == (9 if kind == "universal" else 10)
    assert ("minmax_weight_identity" in result["metrics"]) == (kind == "transforms")
    with np.load(kept) as arrays:
        assert len(arrays["minmax_images"]) == result["data"]["attacked_images"]


def test_bundles_are_asked_about_the_images(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "asked.json"
    words = ["--images", "20", "--steps", "5", "--eps", "0.4", "--out", str(out)]
    kept = tmp_path / "asked.npz"
    assert main(["minmax", "transforms", runs[0], *words, "--bundle", "digits", "--keep", str(kept)]) == 0
    metrics = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    engine, test = Engine.load(find_bundle("digits"), threads=1), load_run(Path(runs[0])).parts(None).test
    with np.load(kept) as arrays:
        clean = engine.detect(test.images[arrays["positions"]])
        for name in ("minmax", "average", "held"):
            answers = engine.detect(arrays[f"{name}_images"])
            pairs = zip(clean, answers, strict=True)
            read = [before.top.index != after.top.index for before, after in pairs]
            found = [answer.verdict is Verdict.ADVERSARIAL for answer in answers]
            assert (metrics[f"{name}_asr_digits"], metrics[f"{name}_found_digits"]) == (np.mean(read), np.mean(found))
            assert any(found)
    assert main(["minmax", "transforms", runs[0], *words, "--bundle", "digits", "--bundle", "digits"]) == 1
    assert "--bundle digits: expected a name of its own, got digits again; rename it" in capsys.readouterr().err
    assert main(["minmax", "transforms", runs[0], *words, "--bundle", "gtsrb"]) == 1
    assert "--bundle gtsrb: expected one for images of (8, 8, 1), got one for (32, 32, 3)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ensemble", "SMALL"], "minmax ensemble: expected two runs or more, got 1"),
        (["universal", "SMALL", "PERCEPTRON"], "minmax universal: expected one run, got 2"),
        (["ensemble", "SMALL", "SMALL"], "expected different run directories, got one of them twice"),
        (["ensemble", "SMALL", "nowhere"], "nowhere: expected a run directory"),
        (["transforms", "SMALL", "--images", "0"], "--images: expected at least 1, got 0"),
        (["transforms", "SMALL", "--images", "99999"], "--images: expected at most the"),
        (["transforms", "SMALL", "--gamma", "200"], "gamma: expected less than 2 beta, 100, got 200"),
        (["transforms", "SMALL", "--eps", "nan"], "eps: expected a number above 0 for norm linf, got nan"),
        (["transforms", "SMALL", "--weights", "0.5,0.5"], "weights: expected one for each of 6 domains, got 2"),
        (["universal", "SMALL", "--group", "5000"], "--images: expected 1 to 0 groups of 5000 images"),
        (["transforms", "SMALL", "--seed", "-1"], "--seed: expected 0 or more, got -1"),
        (["transforms", "SMALL", "--keep", "x.json"], "--keep: expected a file NAME.npz, got x.json"),
    ],
    ids=lambda value: "-".join(value[:1] + value[2:]) if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_refused(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    given = [{"SMALL": runs[0], "PERCEPTRON": runs[1]}.get(word, word) for word in words]
    assert main(["minmax", *given, "--out", str(tmp_path / "no.json"), "--steps", "1"]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "no.json").exists()


def test_numbers_that_are_none_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["minmax", "ensemble", "a", "b", "--out", "x.json", "--weights", "half"])
    assert "expected numbers such as 0.5,0.25,0.25, got 'half'" in capsys.readouterr().err
