"""Weights that are learned without any attack, and bundles that are exported with them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from service.detection.calibration import Calibration
from service.errors import SetupError
from training.__main__ import main
from training.checkpoint import load_run
from training.data.splits import Parts
from training.data.types import ImageSet, empty_like
from training.export import export
from training.fusion import fit_weights, forged_and_harmless, made_fusion, surprises, weight_images


def surprised(seed: int, *shifts: float, count: int = 2000) -> np.ndarray:
    """-log p of detectors that see so much of a change; of clean images for 0."""
    return np.random.default_rng(seed).exponential(size=(count, len(shifts))) + np.array(shifts)


def test_a_detector_of_noise_weighs_nothing_and_a_better_one_more() -> None:
    weights = fit_weights(surprised(0, 0.5, 0.0, 1.5), surprised(1, 0.0, 0.0, 0.0))
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
    assert weights[1] < 0.02
    assert weights[2] > weights[0] > 0.02


def test_a_detector_that_falls_where_others_rise_gets_no_negative_weight() -> None:
    clean = surprised(2, 0.0, 1.0)
    weights = fit_weights(surprised(3, 1.0, 0.0), clean)
    assert weights.tolist() == [1.0, 0.0]


def test_weights_part_what_is_parted_without_end() -> None:
    weights = fit_weights(surprised(4, 300.0, 0.0), surprised(5, 0.0, 0.0))
    assert np.isfinite(weights).all()
    assert weights[0] > 0.9


def test_they_minimise_what_they_say() -> None:
    """No weights near them have a lower loss, written out slowly."""
    attacked, clean = surprised(6, 0.7, 0.3, count=300), surprised(7, 0.0, 0.0, count=500)
    weights = fit_weights(attacked, clean)

    def loss(scale: float, bias: float, share: float) -> float:
        w = scale * np.array([share, 1 - share])
        terms = [np.log1p(np.exp(-(attacked @ w + bias))).mean(), np.log1p(np.exp(clean @ w + bias)).mean()]
        return float(np.mean(terms) + w.sum() / np.sqrt(300))

    grid = [(s, b) for s in np.linspace(0.05, 2, 40) for b in np.linspace(-3, 0.5, 40)]
    best = {
        share: min(loss(s, b, share) for s, b in grid) for share in (weights[0] - 0.1, weights[0], weights[0] + 0.1)
    }
    assert min(best, key=lambda share: best[share]) == weights[0]


def test_detectors_of_noise_alone_are_refused() -> None:
    with pytest.raises(SetupError, match=r"export\.fusion: expected detectors that tell forged .* choose fisher"):
        fit_weights(surprised(8, 0.0, 0.0), surprised(9, 0.0, 0.0))


def part(count: int, tracks: np.ndarray | None = None) -> ImageSet:
    images = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(4, axis=1)
    return ImageSet(images=images, labels=np.arange(count) // 5, tracks=tracks)


def parts(selection: ImageSet) -> Parts:
    none = empty_like(selection)
    fit = part(7)
    return Parts(train=none, selection=selection, fit=fit, calibration=none, fusion=none, test=none)


def test_weights_and_their_comparison_use_halves_of_the_selection_part_that_share_no_track() -> None:
    tracks = np.repeat(np.arange(10), 4)
    for of in (part(40), part(40, tracks)):
        first, second = weight_images(parts(of))
        shown = [set(half.images[:, 0, 0, 0].tolist()) for half in (first, second)]
        assert shown[0] | shown[1] == set(range(40))
        assert len(first) == len(second) == 20
        assert len(set(first.labels[:10])) >= 4  # mixed, as only the first are used where there are many
        if of.tracks is not None:
            assert not set(np.unique(first.tracks)) & set(np.unique(second.tracks))


def test_without_a_selection_part_weights_are_learned_from_the_fit_part() -> None:
    first, second = weight_images(parts(empty_like(part(1))))
    assert (len(first), len(second)) == (7, 0)


def test_weights_are_of_the_seed_and_of_images_of_8_bits() -> None:
    images = np.random.default_rng(10).integers(0, 255, (30, 8, 8, 1), dtype=np.uint8)
    forged, harmless = forged_and_harmless(images, eps=0.1, seed=1)
    assert forged.dtype == harmless.dtype == np.uint8
    assert len(forged) == len(harmless) == 120
    assert np.array_equal(forged_and_harmless(images, eps=0.1, seed=1)[0], forged)
    assert not np.array_equal(forged_and_harmless(images, eps=0.1, seed=2)[0], forged)

    def roughness(some: np.ndarray) -> np.ndarray:
        """One detector of fine detail, and one of nothing."""
        detail = np.abs(np.diff(some.astype(float), axis=1)).mean(axis=(1, 2, 3))
        return np.stack([detail, np.random.default_rng(len(some)).normal(size=len(some))], axis=1).astype(np.float32)

    smooth = np.full((60, 8, 8, 1), 128, np.uint8) + np.random.default_rng(11).integers(0, 9, (60, 1, 1, 1), np.uint8)
    calibrated_on = roughness(forged_and_harmless(smooth[:20], eps=0.1, seed=5)[1])
    made = made_fusion("weighted", calibrated_on=calibrated_on, score=roughness, images=smooth[20:], eps=0.1, seed=0)
    assert made.weights is not None
    assert made.weights[0] > 0.9


def test_surprise_is_that_of_the_calibration() -> None:
    first, second, new = np.random.default_rng(12).normal(size=(3, 50, 2)).astype(np.float32)
    made = Calibration.from_clean(first, second)
    assert surprises(new, first) == pytest.approx(-made.smooth_log_p(new).T)


DETECTORS = ['export.detectors=["gaussian","high_frequency"]']
"""The second tells noise-like perturbations from harmless changes, even on 8 x 8 pixels."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("run") / "digits"
    tiny = ["train.epochs=2", "attack.steps=1", "tla.weight=0", "train.threads=1", "data.fusion=400", "data.train=600"]
    assert main(["fit", "digits", "--out", str(made), *tiny]) == 0
    return made


@pytest.mark.parametrize("kind", ["harmonic", "weighted"])
def test_a_finished_run_is_exported_with_another_fusion(run: Path, tmp_path: Path, kind: str) -> None:
    made = export(run, tmp_path / kind, data_root=None, overrides=[f"export.fusion={kind}", *DETECTORS])
    fusion = made.calibration.fusion
    assert (fusion.kind, made.manifest.training["export"]["fusion"]) == (kind, kind)
    assert (fusion.weights is not None) == (kind == "weighted")
    assert ("learned from forged" in (made.path / "model_card.md").read_text()) == (kind == "weighted")
    assert load_run(run).recipe.export.fusion == "fisher"


def test_a_finished_run_is_exported_by_class(run: Path, tmp_path: Path) -> None:
    asked = ["export.mondrian=true", "export.default_alpha=0.025"]
    made = export(run, tmp_path / "rows", data_root=None, overrides=asked)
    own = made.calibration.by_class
    assert own is not None
    assert 0 < own.has_own_row.sum() <= 10
    assert made.calibration.rows.smallest >= 39
    assert made.calibration.fused_scores.size == own.predicted.size == 400
    card = (made.path / "model_card.md").read_text()
    assert all(f"{made.manifest.class_names[label]} ({count})" in card for label, count in own.own_counts.items())
    plain = export(run, tmp_path / "plain", data_root=None, overrides=asked[1:])
    assert np.array_equal(plain.calibration.fused_scores, made.calibration.fused_scores)
    assert dataclasses.replace(made.calibration, by_class=None).to_bytes() == plain.calibration.to_bytes()


def test_an_unknown_fusion_names_the_known_ones(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--out", str(tmp_path / "x"), "export.fusion=stouffer"]) == 1
    assert "export.fusion: expected one of fisher, harmonic, weighted, got 'stouffer'" in capsys.readouterr().err
