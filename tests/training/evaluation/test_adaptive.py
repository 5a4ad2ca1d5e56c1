"""Attacks that know the detectors, through the bundle's torch twin, as `evaluate` runs them."""

import dataclasses
import json
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.detection.bundle import load_bundle
from service.detection.engine import Engine
from service.errors import SetupError
from tests.training.evaluation.conftest import BRIEF, SHORT
from training.__main__ import main
from training.attacks.rounding import from_8_bit
from training.checkpoint import load_run
from training.evaluation import preparing
from training.evaluation.adaptive_suite import _accepted_up_to, adaptive_suite
from training.evaluation.aimed import Known
from training.evaluation.attacking import attack_images
from training.evaluation.availability import availability_suite
from training.evaluation.cost import passes_of
from training.evaluation.decisions import FUSED, decide
from training.evaluation.judging import inside
from training.evaluation.pairing import as_exported
from training.evaluation.suite import Budgets, SuiteEntry
from training.evaluation.twin import torch_twin
from training.graph import BundleGraph

BUDGETS = Budgets(linf=0.1, l2=0.4)


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """The exported bundle, its twin, and test images."""

    engine: Engine
    known: Known
    images: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="module")
def setting(run: tuple[Path, Path], exported: Path) -> Setting:
    loaded, engine = load_run(run[0]), Engine(load_bundle(exported))
    parts = loaded.parts(run[1])
    known = Known.of(torch_twin(loaded, parts, engine), engine, parts.train.images)
    return Setting(engine=engine, known=known, images=parts.test.images[:12], labels=parts.test.labels[:12])


def entries(setting: Setting) -> tuple[SuiteEntry, ...]:
    return adaptive_suite(setting.known, BUDGETS, "linf", BRIEF, alpha=0.1)


def test_every_attack_keeps_its_budget_and_can_be_told_from_the_others(setting: Setting) -> None:
    suite = entries(setting)
    assert len({entry.name for entry in suite}) == len({repr(entry.attack) for entry in suite}) == len(suite) == 16
    for entry in suite:
        assert entry.is_adaptive
        assert setting.known.calibration_id in repr(entry.attack)
        assert " at 0x" not in repr(entry.attack)
        model = setting.known.graph.model
        made = attack_images(model, setting.images, setting.labels, entry, seed=0, progress=lambda line: None)
        assert inside(made.images, setting.images, entry.norm, BUDGETS.of(entry.norm)).all(), entry.name


def test_what_is_lowered_is_the_bundles_own_statistic(setting: Setting) -> None:
    """More steps of the same attack find wrong images of a lower fused statistic, as the bundle itself gives it."""
    fused = []
    for steps in (1, 30):
        strength = dataclasses.replace(BRIEF, steps=steps)
        entry = adaptive_suite(setting.known, Budgets(linf=0.4, l2=1.0), "linf", strength, alpha=0.1)[0]
        assert entry.name == "adaptive_selective"
        model = setting.known.graph.model
        made = attack_images(model, setting.images, setting.labels, entry, seed=0, progress=lambda line: None)
        answers = decide(setting.engine, made.images)
        fused.append(np.where(answers.labels != setting.labels, answers.scores[FUSED], np.inf))
    assert (fused[1] <= fused[0] + 1e-3).all()
    assert (fused[1] < fused[0]).sum() >= 6


def test_the_threshold_is_that_of_the_verdict(setting: Setting) -> None:
    calibration = setting.engine.bundle.calibration
    for alpha in (0.05, 0.1, 0.3):
        largest = _accepted_up_to(calibration, alpha)
        for statistic, is_accepted in ((largest, True), (np.nextafter(np.float32(largest), np.float32(np.inf)), False)):
            p = (1 + (calibration.fused_scores >= statistic).sum()) / (calibration.fused_scores.size + 1)
            assert bool(p > alpha) == is_accepted
    with pytest.raises(SetupError, match=r"alpha 0\.01: expected at least 0\.0476"):
        _accepted_up_to(calibration, 0.01)


def test_detectors_of_other_data_are_not_taken_for_the_bundles(run: tuple[Path, Path], setting: Setting) -> None:
    loaded = load_run(run[0])
    parts = loaded.parts(run[1])
    other = dataclasses.replace(parts, fit=dataclasses.replace(parts.fit, images=255 - parts.fit.images))
    with pytest.raises(SetupError, match="expected the detectors of the bundle quadrants when they are fitted again"):
        torch_twin(loaded, other, setting.engine)
    first, *others = setting.engine.bundle.manifest.detectors
    detectors = (dataclasses.replace(first, kind="oracle"), *others)
    manifest = dataclasses.replace(setting.engine.bundle.manifest, detectors=detectors)
    unknown = Engine(dataclasses.replace(setting.engine.bundle, manifest=manifest))
    with pytest.raises(SetupError, match=r"expected detectors among gaussian, mixture, .* got oracle; attack the"):
        torch_twin(loaded, parts, unknown)


def test_the_twin_gives_the_scores_of_the_bundle(setting: Setting) -> None:
    scores = setting.known.graph.score(from_8_bit(setting.images))[2].detach().numpy()
    np.testing.assert_allclose(scores, setting.engine.measure(setting.images).outputs.scores, rtol=1e-3, atol=1e-3)


def test_shares_of_less_than_a_level_are_left_out(setting: Setting) -> None:
    known = setting.known
    found = availability_suite(
        known.graph,
        known.calibration,
        known.calibration_id,
        Budgets(linf=8.5 / 255, l2=1.0),
        "linf",
        steps=1,
        restarts=1,
    )
    assert [entry.name for entry in found] == ["denial_0.125", "denial_0.25", "denial_0.5", "denial_1"]


@pytest.fixture(scope="module")
def report(
    run: tuple[Path, Path], exported: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], str]:
    """report.json and report.html."""
    out = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(preparing._STRENGTHS, "quick", BRIEF)
        patch.setitem(preparing._SERIES, "quick", SHORT)
        words = ["--budget", "quick", "--images", "20"]
        given = ["evaluate", str(exported), "--run", str(run[0]), "--data", str(run[1]), "--out", str(out), *words]
        assert main(given) == 0
    read = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return read, (out / "report.html").read_text(encoding="utf-8")


def test_the_worst_case_of_all_attacks_is_no_better_than_that_of_the_blind(report: tuple[dict[str, Any], str]) -> None:
    unions = {(union["norm"], union["is_adaptive"]): union for union in report[0]["unions"]}
    assert len(unions) == 4
    for norm in ("linf", "l2"):
        blind, all_of_them = unions[norm, False], unions[norm, True]
        assert all_of_them["accuracy"]["value"] <= blind["accuracy"]["value"]
        for one, other in zip(blind["rejection"], all_of_them["rejection"], strict=True):
            assert other["robust_accuracy"]["value"] <= one["robust_accuracy"]["value"]


def test_more_room_gets_no_fewer_good_images_rejected(report: tuple[dict[str, Any], str]) -> None:
    rates = [row["rejected"][-1]["rate"]["value"] for row in report[0]["availability"]]
    assert len(rates) == 5
    assert rates == sorted(rates)


def test_the_page_tells_what_those_who_know_reach(report: tuple[dict[str, Any], str]) -> None:
    html = report[1]
    assert "Attackers who know the detectors" in html
    assert "that test has not been run" not in html
    assert "Against those who know them, <strong>" in html
    assert all(escape(attack["title"]) in html for attack in report[0]["attacks"])
    assert report[0]["threat_model"]["adaptive"]


def test_the_series_grow_and_lengthen_on_some_of_the_images(report: tuple[dict[str, Any], str]) -> None:
    sweep, longer = report[0]["sweep"], report[0]["convergence"]
    assert [row["share"] for row in sweep] == [0.25, 0.5, 0.75, 1, 1.5, 2]
    assert {row["accuracy"]["n"] for row in sweep} == {SHORT.images}
    accuracies = [row["accuracy"]["value"] for row in sweep]
    assert accuracies == sorted(accuracies, reverse=True)
    knowing = [[at["robust_accuracy"]["value"] for at in row["rejection"]] for row in sweep if row["rejection"]]
    assert len(knowing) == 4
    assert all(small <= large for one, other in pairwise(knowing) for small, large in zip(other, one, strict=True))
    assert [(row["steps"], row["restarts"]) for row in longer["rows"]] == [(1, 1), (3, 1), (1, 2)]


def test_the_cost_and_what_each_detector_adds_are_told(report: tuple[dict[str, Any], str]) -> None:
    cost, left_out = report[0]["cost"], report[0]["left_out"]
    assert cost["passes"] == 1
    assert cost["batched_ms"] > 0
    assert 0 < cost["graph_mb"] < 1
    assert [row["detector"] for row in left_out] == [None, "gaussian", "mixture", "spectrum"]
    assert [row["detector"] for row in report[0]["uniformity"]] == ["gaussian", "mixture", "spectrum", "fused"]
    assert "What each detector adds" in report[1]


def test_detectors_that_read_a_changed_image_cost_a_pass_more(setting: Setting) -> None:
    graph = setting.known.graph
    more = BundleGraph(graph.model, [*graph.detectors, LowPass(graph.model)])
    assert (passes_of(graph, setting.images), passes_of(more, setting.images)) == (1, 2)


class LowPass(torch.nn.Module):
    """Asks the classifier again."""

    def __init__(self, classifier: torch.nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: torch.Tensor, logits: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.classifier(images / 2)
        return changed.amax(dim=1)


def test_adaptive_attacks_may_be_run_alone(run: tuple[Path, Path], exported: Path, tmp_path: Path) -> None:
    given = ["evaluate", str(exported), "--run", str(run[0]), "--data", str(run[1]), "--out", str(tmp_path)]
    assert main([*given, "--budget", "quick", "--images", "10", "--attacks", "adaptive_selective"]) == 0
    unions = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["unions"]
    assert [(union["norm"], union["is_adaptive"]) for union in unions] == [("linf", True), ("l2", True)]


def test_a_result_tells_how_the_bundle_was_exported_and_not_the_run(run: tuple[Path, Path], exported: Path) -> None:
    trained, bundle = load_run(run[0]), load_bundle(exported)
    other = dataclasses.replace(trained.recipe.export, detectors=("softmax",), version="9")
    changed = dataclasses.replace(trained, recipe=dataclasses.replace(trained.recipe, export=other))
    found = as_exported(changed, bundle).recipe
    assert list(found.export.detectors) == [entry.kind for entry in bundle.manifest.detectors]
    assert found.export.version == bundle.manifest.version
    assert dataclasses.replace(found, export=other) == changed.recipe
