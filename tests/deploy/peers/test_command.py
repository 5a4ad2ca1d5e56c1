"""The comparison runs from end to end, its figures are those of the bundle, and its tables say what they rest on."""

import json
from pathlib import Path

import numpy as np
import pytest

from deploy import results
from deploy.peers.command import Options, _options, compare, main
from deploy.peers.contestants import Contestant, of_bundle
from deploy.peers.measure import Labelled, figures
from deploy.peers.suite import NAMES, aimed_at, blind_suite
from deploy.peers.tables import markdown, remarks, tables
from service.detection.engine import Engine
from service.detection.types import Bytes8, Float64s
from service.errors import SetupError
from tests.deploy.peers.conftest import quadrants, striped
from tests.training.evaluation.small import BUDGETS, NOTHING
from training.checkpoint import load_run
from training.evaluation.decisions import FUSED, decide
from training.evaluation.held_out import HeldOut
from training.evaluation.twin import torch_twin

FEW = "feature_squeezing,mahalanobis_sum,art_subset_scanning,ood_energy"


@pytest.fixture(scope="module")
def words(run: tuple[Path, Path], exported: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    cache = str(tmp_path_factory.mktemp("cache"))
    common = ["--data", str(run[1]), "--images", "12", "--quick", "--detectors", FEW, "--cache", cache]
    return [str(exported), "--run", str(run[0]), *common]


@pytest.fixture(scope="module")
def written(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "peers-quadrants.json"
    assert main([*words, "--out", str(path)]) == 0
    return path


def test_the_file_is_a_result_that_a_quick_run_must_not_leave(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = json.loads(written.read_text(encoding="utf-8"))
    assert result.keys() >= set(results.FIELDS)
    assert "--data DATA --images 12" in result["command"]
    monkeypatch.setattr(results, "RESULTS", written.parent)
    with pytest.raises(ValueError, match="quick run"):
        results.load()


def test_the_page_shows_the_tables_in_place_of_the_flat_metrics(written: Path) -> None:
    result = json.loads(written.read_text(encoding="utf-8"))
    text = results.page([result], {})
    assert "| ours: fused | clean |" in text
    assert "| ART SubsetScanningDetector | clean | no gradient: not attacked | - |" in text
    assert "* pytorch-ood EnergyBased: not measured: not installed" in text
    assert "ART BEYOND: not measured: needs a self-supervised network" in text
    assert "feature_squeezing/fgsm_auroc" not in text
    asked = {"peers-quadrants": {"ours_fused/mean_auroc": ">= mahalanobis_sum/mean_auroc"}}
    assert "| ours_fused/mean_auroc | >= mahalanobis_sum/mean_auroc |" in results.page([result], asked)


def test_a_second_call_takes_the_attacked_images_and_finds_the_same(words: list[str], written: Path) -> None:
    metrics = json.loads(written.read_text(encoding="utf-8"))["metrics"]
    cache = Path(words[-1])
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert main(words) == 0
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    again = compare(
        Options(
            bundle=words[0],
            run=Path(words[2]),
            data=Path(words[4]),
            images=12,
            quick=True,
            detectors=tuple(FEW.split(",")),
            cache=cache,
        )
    )["metrics"]
    timed = {name for name in metrics if name.endswith("ms_an_image")}
    assert {name: value for name, value in again.items() if name not in timed} == {
        name: value for name, value in metrics.items() if name not in timed
    }


def test_the_data_folder_may_come_from_the_environment(
    words: list[str], written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without = [word for i, word in enumerate(words) if i not in (3, 4)]
    monkeypatch.delenv("ADVSENTRY_DATA", raising=False)
    assert main(without) == 1
    assert "expected a data folder, got none" in capsys.readouterr().err
    monkeypatch.setenv("ADVSENTRY_DATA", words[4])
    assert _options(without).data == Path(words[4])


def test_every_detector_that_is_attacked_has_its_own_attacked_images(words: list[str], written: Path) -> None:
    names = {path.name.rsplit("-", 1)[0] for path in Path(words[-1]).iterdir()}
    ours = {f"selective_ours_{name}" for name in ("fused", "gaussian", "mixture", "spectrum")}
    assert names == {*NAMES, *ours, "selective_feature_squeezing", "selective_mahalanobis_sum"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{bundle}"], "expected a bundle and --run, or neither"),
        ([], "expected the run of `make demo`, found none"),
        (["{bundle}", "--run", "{run}", "--detectors", "magnet"], "--detectors: expected some of art_binary_input"),
        (["{bundle}", "--run", "{run}", "--images", "0"], "--images: expected at least 1, got 0"),
        (["{bundle}", "--run", "{run}", "--seed", "-1"], "--seed: expected 0 or more, got -1"),
        (["digits", "--run", "{run}"], "but the bundle digits"),
        (["{bundle}", "--run", "nowhere"], "expected a run directory"),
    ],
)
def test_bad_input_is_told(
    arguments: list[str],
    message: str,
    run: tuple[Path, Path],
    exported: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([word.format(bundle=exported, run=run[0]) for word in arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("bench-detectors: error: ")
    assert message in error


def test_our_fused_row_is_the_bundles_own_verdict(run: tuple[Path, Path], exported: Path) -> None:
    engine, trained = Engine.load(exported), load_run(run[0])
    parts = trained.parts(run[1])
    fused, *singles = of_bundle(engine, torch_twin(trained, parts, engine))
    assert [one.name for one in (fused, *singles)] == [
        f"ours_{name}" for name in ("fused", "gaussian", "mixture", "spectrum")
    ]
    clean = decide(engine, parts.test.images)
    test = HeldOut(images=parts.test.images, labels=parts.test.labels, chosen=np.arange(len(parts.test)))
    found = measured(fused, test, clean.labels, parts.fusion.images)
    assert found["false_positive_rate_at_0.05"] == clean.rejected(0.05).mean()
    rejected = decide(engine, striped(test.images)).rejected(0.05)
    assert found["nothing_tpr_at_0.05"] == rejected[clean.labels == test.labels].mean()
    for one, name in zip(singles, ("gaussian", "mixture", "spectrum"), strict=True):
        assert np.array_equal(one.score(test.images), clean.scores[name])
    assert np.array_equal(fused.score(test.images), clean.scores[FUSED])


def measured(one: Contestant, test: HeldOut, labels: np.ndarray, fresh: Bytes8) -> dict[str, float]:
    """Figures under striped images, all of which count as misread."""
    attack = Labelled(entry=NOTHING, images=striped(test.images), labels=(test.labels + 1) % 4)
    return figures(one, test, labels, fresh, [attack], attack=lambda: attack, budgets=BUDGETS, seed=0)


def stripes(images: Bytes8) -> Float64s:
    floats = images.astype(float)
    return np.asarray((floats[:, :, ::2] - floats[:, :, 1::2]).mean(axis=(1, 2, 3)))


@pytest.mark.parametrize(
    ("score", "area", "caught"), [(stripes, 1.0, 1.0), (lambda images: np.zeros(len(images)), 0.5, 0.0)]
)
def test_a_perfect_detector_and_one_that_knows_nothing(score: object, area: float, caught: float) -> None:
    one = Contestant(
        name="a",
        title="A",
        source="",
        fit_data="nothing",
        score=score,
        target=None,
        identity="a",  # type: ignore[arg-type]
    )
    data = quadrants(50, seed=4)
    test = HeldOut(images=data.images, labels=data.labels, chosen=np.arange(50))
    found = measured(one, test, data.labels, quadrants(39, seed=5).images)
    assert found["nothing_auroc"] == found["nothing_auroc_all"] == found["mean_auroc"] == area
    assert found["nothing_tpr_at_0.05"] == caught
    assert found["adaptive_accepted_and_wrong_at_0.05"] == 1 - caught
    assert found["false_positive_rate_at_0.05"] <= 0.3


def test_thresholds_need_enough_clean_images() -> None:
    data = quadrants(20, seed=4)
    test = HeldOut(images=data.images, labels=data.labels, chosen=np.arange(20))
    one = Contestant(name="a", title="A", source="", fit_data="nothing", score=stripes, target=None, identity="a")
    with pytest.raises(SetupError, match=r"data\.fusion: expected at least 19 images for thresholds at 0.05, got 18"):
        measured(one, test, data.labels, quadrants(18, seed=5).images)


def test_an_attack_on_what_has_no_gradient_is_refused() -> None:
    one = Contestant(name="a", title="A", source="", fit_data="nothing", score=stripes, target=None, identity="a")
    with pytest.raises(SetupError, match="a: expected a detector with a gradient"):
        aimed_at(one, BUDGETS, "linf", quick=True)


def test_the_suite_is_that_of_evaluate_and_square() -> None:
    assert tuple(entry.name for entry in blind_suite(BUDGETS, quick=False)) == NAMES
    assert not any(entry.is_adaptive for entry in blind_suite(BUDGETS, quick=False))


def test_a_rate_over_few_images_is_a_fraction() -> None:
    metrics = {
        "attacks/right": 200.0,
        "attacks/pgd_misread": 0.25,
        "attacks/pgd_successful": 40.0,
        "attacks/fgsm_successful": 150.0,
        "a/pgd_tpr_at_0.05": 0.25,
        "a/fgsm_tpr_at_0.05": 0.5,
        "a/false_positive_rate_at_0.05": 0.04,
        "a/ms_an_image": 0.5,
        "a/pgd_auroc": 0.75,
    }
    result = {
        "metrics": metrics,
        "attacks": {"pgd": "PGD", "fgsm": "FGSM"},
        "detectors": [
            {"name": "a", "title": "A", "fit": "clean", "has_gradient": False},
            {"title": "B", "why": "gone"},
        ],
    }
    areas, _, rates, own = (rows[1] for _, rows in tables(result))
    assert areas == ("A", "clean", "0.750", "-", "-", "-")
    assert rates == ("A", "clean", "10/40", "0.500", "0.040", "0.5")
    assert own == ("A", "clean", "no gradient: not attacked", "-", "-", "-")
    assert "B: not measured: gone" in remarks(result)
    assert "| A | clean | 10/40 | 0.500 | 0.040 | 0.5 |" in markdown(result)
