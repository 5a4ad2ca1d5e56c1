"""The command from end to end: a run and a bundle that classify the same quadrants."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.detection.bundle import Bundle, load_bundle
from service.detection.engine import Engine
from service.errors import SetupError
from tests.training.evaluation.conftest import BRIEF, SHORT
from training.__main__ import main
from training.checkpoint import load_run
from training.config import recipe_to_dict
from training.evaluation import preparing
from training.evaluation.pairing import check_pair
from training.evaluation.suite import quick_suite
from training.methods import AttackConfig


def arguments(bundle: Path, run: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    return ["evaluate", str(bundle), "--run", str(run[0]), "--data", str(run[1]), "--out", str(out), *more]


def test_it_writes_both_reports_and_says_the_headline(
    bundle_path: Path, run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            arguments(
                bundle_path,
                run,
                tmp_path / "out",
                "--budget",
                "quick",
                "--non-adaptive",
                "--attacks",
                "fgsm,ddn",
                "--images",
                "20",
            )
        )
        == 0
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [attack["name"] for attack in report["attacks"]] == ["fgsm", "ddn"]
    assert (report["data"]["test_images"], report["data"]["attacked_images"]) == (40, 20)
    assert not report["publishable"]
    assert report["provenance"]["command"].endswith(
        "--images 20 --attacks fgsm,ddn --seed 0 --budget quick --non-adaptive"
    )
    assert "<!doctype html>" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert printed.startswith("quick run: do not quote these figures\n")
    assert "none of these attacks knew of the detectors" in printed


def test_the_same_seed_gives_the_same_figures(bundle_path: Path, run: tuple[Path, Path], tmp_path: Path) -> None:
    reports = []
    for name in ("one", "two"):
        main(arguments(bundle_path, run, tmp_path / name, "--budget", "quick", "--non-adaptive", "--attacks", "pgd"))
        reports.append(json.loads((tmp_path / name / "report.json").read_text(encoding="utf-8"))["attacks"][0])
    assert {**reports[0], "seconds": 0} == {**reports[1], "seconds": 0}


def test_publish_puts_the_headline_into_the_bundle_and_result_into_its_file(
    run: tuple[Path, Path],
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        preparing, "blind_suite", lambda budgets, _: quick_suite(budgets)[:4]
    )  # the whole takes minutes
    monkeypatch.setitem(preparing._STRENGTHS, "standard", BRIEF)
    monkeypatch.setitem(preparing._SERIES, "standard", SHORT)
    bundle, result = tmp_path / "tiny", tmp_path / "results" / "tiny-attacks.json"
    shutil.copytree(exported, bundle)
    more = ("--publish", "--result", str(result), "--json")
    assert main(arguments(bundle, run, tmp_path / "out", *more)) == 0
    printed = json.loads(capsys.readouterr().out)["metrics"]
    manifest = load_bundle(bundle).manifest
    assert dict(manifest.metrics).items() <= printed.items()
    assert "pgd_auroc" in manifest.metrics
    assert manifest.metrics_command.startswith("advsentry-train evaluate ")
    kept = json.loads(result.read_text(encoding="utf-8"))
    assert kept["name"] == "tiny-attacks"
    assert kept["metrics"].pop("training_seconds") == pytest.approx(load_run(run[0]).seconds, abs=0.1)
    assert kept["metrics"] == printed
    assert kept.keys() == {"name", "command", "recipe", "seed", "commit", "machine", "seconds", "data", "metrics"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attack": AttackConfig(eps=0.2)}, "trained for linf 0.2, but the bundle tiny for linf 0.1"),
        ({"names": ("a", "b", "c", "d")}, r"4 classes \(a, b, c, ...\), but the bundle tiny has 4 \(north-west,"),
        ({"shape": (8, 8, 3)}, r"images of \(8, 8, 3\), but the bundle tiny takes \(8, 8, 1\)"),
    ],
    ids=["threat-model", "class-names", "shape"],
)
def test_a_run_of_something_else_is_refused(
    engine: Engine, run: tuple[Path, Path], change: dict[str, Any], message: str
) -> None:
    loaded = load_run(run[0])
    other = dataclasses.replace(
        loaded,
        recipe=dataclasses.replace(loaded.recipe, attack=change.get("attack", loaded.recipe.attack)),
        class_names=change.get("names", loaded.class_names),
        input_shape=change.get("shape", loaded.input_shape),
    )
    check_pair(loaded, engine.bundle)
    with pytest.raises(SetupError, match=message):
        check_pair(other, engine.bundle)


def test_a_run_of_another_recipe_is_refused(engine: Engine, run: tuple[Path, Path]) -> None:
    """Its gradients would make mere transfer attacks, which flatter the bundle."""
    loaded = load_run(run[0])

    def made_by(table: dict[str, dict[str, Any]]) -> Bundle:
        manifest = dataclasses.replace(engine.bundle.manifest, training=table)
        return dataclasses.replace(engine.bundle, manifest=manifest)

    own = recipe_to_dict(loaded.recipe)
    check_pair(loaded, made_by(own))
    before_the_key = {**own, "train": {key: value for key, value in own["train"].items() if key != "flip"}}
    check_pair(loaded, made_by({name: table for name, table in before_the_key.items() if name != "awp"}))
    other = {**own, "train": {**own["train"], "seed": 1}}
    with pytest.raises(SetupError, match="its recipe is not the one that the bundle tiny was made by"):
        check_pair(loaded, made_by(other))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attacks", "fgms"], "expected some of fgsm, fgsm_l2"),
        (["--publish", "--budget", "quick"], "--publish: needs the whole suite at standard strength or more"),
        (["--publish", "--non-adaptive"], "--publish: needs the whole suite at standard strength or more"),
        (["--images", "0"], "--images: expected at least 1, got 0"),
        (["--l2-eps", "nan"], "--l2-eps: expected a number above 0, got nan"),
        (["--seed", "-1"], "--seed: expected 0 or more, got -1"),
        (["--run", "nowhere"], "nowhere: expected a run directory"),
        (["--data", "nowhere.npz"], "found nothing there"),
    ],
    ids=["attack", "publish-quick", "publish-non-adaptive", "images", "l2-eps", "seed", "run", "data"],
)
def test_a_mistake_is_one_clear_line(
    exported: Path,
    run: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    assert main(arguments(exported, run, tmp_path / "out", *words)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_bundle_is_one_clear_line(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path / "nothing", run, tmp_path / "out")) == 1
    assert "no such bundle directory" in capsys.readouterr().err
