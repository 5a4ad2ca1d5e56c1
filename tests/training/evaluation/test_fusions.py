"""Fusions side by side: figures by hand, and the command from end to end."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from training.__main__ import main
from training.checkpoint import load_run
from training.evaluation import suite
from training.evaluation.fusions import Contest, Scores, compare_fusions
from training.fusion import weight_images

TINY = ("train.epochs=3", "attack.steps=1", "tla.weight=0", "train.threads=1", "data.train=500", "model.width=4")


def drawn(seed: int, count: int, *shifts: float) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, 3)) + np.array(shifts)).astype(np.float32)


@pytest.fixture(scope="module")
def contests() -> dict[tuple[str | None, tuple[str, ...]], Contest]:
    """Detector a sees the first attack and b the second, n neither."""
    scores = Scores(
        detectors=("a", "b", "n"),
        calibration=drawn(0, 300, 0, 0, 0),
        fusion=drawn(1, 300, 0, 0, 0),
        clean=drawn(2, 2000, 0, 0, 0),
        attacked={"one": drawn(3, 500, 3, 0, 0), "two": drawn(4, 400, 0, 2, 0), "none": drawn(5, 0, 0, 0, 0)},
        lesson=(np.exp(drawn(6, 1000, 1, 1, 0)).astype(float), np.exp(drawn(7, 1000, 0, 0, 0)).astype(float)),
    )
    found, remarks = compare_fusions(scores)
    assert remarks == []
    return {(one.fusion, one.detectors): one for one in found}


def test_every_kind_every_detector_alone_and_without_each(
    contests: dict[tuple[str | None, tuple[str, ...]], Contest],
) -> None:
    every = ("a", "b", "n")
    assert list(contests)[:6] == [
        *((kind, every) for kind in ("fisher", "harmonic", "weighted")),
        *((None, (name,)) for name in every),
    ]
    without = {(kind, one.left_out) for (kind, _), one in contests.items() if one.left_out}
    assert without == {(kind, out) for kind in ("fisher", "harmonic", "weighted") for out in every}
    weights = contests["weighted", every].weights
    assert weights is not None
    assert weights[2] < 0.05 < min(weights[:2])


def test_the_figures_are_those_of_the_attacks(contests: dict[tuple[str | None, tuple[str, ...]], Contest]) -> None:
    for one in contests.values():
        assert one.false_positives["0.01"] == pytest.approx(0.01, abs=0.02)
        assert one.false_positives["0.05"] == pytest.approx(0.05, abs=0.04)
        assert one.aurocs["none"] is one.found["none"] is None
    alone = contests[None, ("a",)]
    assert alone.aurocs["one"] == pytest.approx(0.983, abs=0.01)  # Phi(3 / sqrt 2)
    assert alone.aurocs["two"] == pytest.approx(0.5, abs=0.04)
    assert alone.worst_auroc == alone.aurocs["two"]
    assert alone.mean_auroc == pytest.approx((alone.aurocs["one"] + alone.aurocs["two"]) / 2)  # type: ignore[operator]
    assert (contests["fisher", ("b", "n")].aurocs["one"] or 1) < 0.6  # what is lost without a
    assert (contests["fisher", ("a", "b", "n")].worst_found or 0) > alone.worst_found  # type: ignore[operator]
    assert (contests["harmonic", ("a", "b", "n")].found["one"] or 0) > (
        contests["fisher", ("a", "b", "n")].found["one"] or 0  # one strong sign
    )


def test_a_fusion_without_weights_is_left_out_and_said_so() -> None:
    clean = drawn(8, 300, 0, 0, 0)
    scores = Scores(
        detectors=("a", "b", "n"),
        calibration=clean,
        fusion=clean,
        clean=clean,
        attacked={"one": clean},
        lesson=(np.ones((50, 3)), np.ones((50, 3))),
    )
    found, remarks = compare_fusions(scores)
    assert {one.fusion for one in found} == {"fisher", "harmonic", None}
    assert remarks[0].startswith("weighted of a, b, n is left out: export.fusion: expected detectors that tell")


def test_the_command_prints_a_table_and_writes_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weak = dataclasses.replace(suite.SHORT, steps=3, carlini_steps=4, bisections=2)
    monkeypatch.setattr(suite, "SHORT", weak)
    run = tmp_path / "run"
    assert main(["fit", "digits", "--out", str(run), *TINY, "data.selection=120"]) == 0
    capsys.readouterr()
    asked = ['export.detectors=["gaussian","high_frequency"]', "--images", "30"]
    assert main(["fusions", str(run), *asked]) == 0
    told = capsys.readouterr().out
    assert told.startswith("For choosing only: selection images")
    kept = json.loads((run / "fusions.json").read_text())
    assert kept["clean_images"] == 30
    assert set(kept["fooling_images"]) == {"pgd", "margin_pgd", "pgd_l2", "cw_l2"}
    assert kept["fooling_images"]["pgd"] > 0
    assert [one["fusion"] for one in kept["contests"]] == ["fisher", "harmonic", "weighted", None, None]
    assert all(name in told for name in ("harmonic", "high_frequency", "cw_l2", "fusions.json"))
    assert main(["fusions", str(run), *asked, "--json", "--out", str(tmp_path / "again.json")]) == 0
    assert json.loads(capsys.readouterr().out) == kept
    learned_on, judged_on = weight_images(load_run(run).parts(None))
    assert (len(learned_on), len(judged_on)) == (60, 60)


def test_without_selection_images_there_is_nothing_to_choose_by(
    run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fusions", str(run[0]), "--data", str(run[1])]) == 1
    assert "data.selection: expected images to compare fusions on, got none" in capsys.readouterr().err
