"""Attackers who make a bundle of their own, and those who walk from known images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from service.detection.bundle import load_bundle
from service.detection.engine import Engine
from service.errors import SetupError
from tests.training.evaluation.conftest import BRIEF
from training.__main__ import main
from training.attacks.adaptive import GraphTarget
from training.attacks.rounding import from_8_bit
from training.checkpoint import load_run
from training.evaluation.aimed import Aimed, Known
from training.evaluation.limited import limited_suite, own_bundle
from training.evaluation.suite import Budgets, SuiteEntry
from training.evaluation.twin import torch_twin
from training.evaluation.walking import WalkFromKnown

BUDGETS = Budgets(linf=0.1, l2=0.4)


@pytest.fixture(scope="module")
def known(run: tuple[Path, Path], exported: Path) -> Known:
    loaded, engine = load_run(run[0]), Engine(load_bundle(exported))
    parts = loaded.parts(run[1])
    return Known.of(torch_twin(loaded, parts, engine), engine, parts.train.images)


def suite_of(run: tuple[Path, Path], known: Known, other: Path) -> tuple[SuiteEntry, ...]:
    return limited_suite(load_run(run[0]), [other], known, BUDGETS, "linf", BRIEF, data_root=run[1], seed=0)


def test_they_aim_at_their_own_detectors_and_calibration(run: tuple[Path, Path], known: Known, other: Path) -> None:
    suite = suite_of(run, known, other)
    assert [entry.name for entry in suite] == ["limited1_selective", "limited1_orthogonal", "limited1_match_embedding"]
    assert all(entry.is_adaptive for entry in suite)
    images = from_8_bit(known.images[:6])
    with torch.no_grad():
        _, own = GraphTarget(known.graph, known.calibration)(images)
        for entry in suite:
            assert isinstance(entry.attack, Aimed)
            assert not torch.allclose(entry.attack.target(images)[1], own)


def test_their_bundle_has_the_same_kinds_and_fusion(run: tuple[Path, Path], known: Known, other: Path) -> None:
    made = own_bundle(load_run(other), known, data_root=run[1], seed=0)
    assert made.names == known.names
    assert made.calibration.fusion is known.calibration.fusion
    assert made.calibration_id != own_bundle(load_run(run[0]), known, data_root=run[1], seed=0).calibration_id
    assert ((made.p_values > 0) & (made.p_values <= 1)).all()


def test_the_run_itself_is_no_surrogate(run: tuple[Path, Path], known: Known) -> None:
    with pytest.raises(SetupError, match=r"--surrogate .*: expected another network, got the weights"):
        suite_of(run, known, run[0])


def test_the_command_judges_them(run: tuple[Path, Path], exported: Path, other: Path, tmp_path: Path) -> None:
    given = ["evaluate", str(exported), "--run", str(run[0]), "--data", str(run[1]), "--out", str(tmp_path / "out")]
    given += ["--budget", "quick", "--images", "10", "--surrogate", str(other)]
    assert main([*given, "--attacks", "limited1_selective"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [attack["title"] for attack in report["attacks"]] == ["Selective PGD by way of other"]
    assert f"--surrogate {other}" in report["provenance"]["command"]


def test_a_surrogate_beside_non_adaptive_is_refused(
    run: tuple[Path, Path], bundle_path: Path, other: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = ["evaluate", str(bundle_path), "--run", str(run[0]), "--data", str(run[1]), "--out", str(tmp_path / "out")]
    assert main([*given, "--non-adaptive", "--surrogate", str(other)]) == 1
    assert "--surrogate: expected no --non-adaptive beside it" in capsys.readouterr().err


def test_a_walk_starts_at_the_nearest_accepted_image_of_another_class(known: Known) -> None:
    alpha = 0.3
    walk = WalkFromKnown(known=known, norm="linf", eps=0.1, alpha=alpha, threshold=1.0, turns=1, probes=2)
    images, labels = from_8_bit(known.images[:8]), torch.from_numpy(known.labels[:8])
    starts = walk._starts(images, labels, None)
    for image, label, start in zip(images, labels.tolist(), starts, strict=True):
        fits = np.flatnonzero((known.labels != label) & (known.p_values > alpha))
        lengths = [float((from_8_bit(known.images[[row]])[0] - image).norm()) for row in fits]
        assert float((start - image).norm()) == pytest.approx(min(lengths), rel=1e-4)
