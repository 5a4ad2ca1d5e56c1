"""The kinds of fusion: their formulas, and what must hold of every one."""

from pathlib import Path

import numpy as np
import pytest

from service.detection.bundle import SHIPPED, load_bundle
from service.detection.calibration import Calibration, alpha_rank, p_values, smooth_log_p
from service.detection.fusion import FISHER, FUSION_KINDS, Fusion

LARGEST = np.finfo(np.float32).max
WEIGHTS = np.array([0.7, 0.0, 0.3])
FUSIONS = (FISHER, Fusion(kind="harmonic"), Fusion(kind="weighted", weights=WEIGHTS))
EVERY = pytest.mark.parametrize("fusion", FUSIONS, ids=FUSION_KINDS)


def dependent(generator: np.random.Generator, count: int) -> np.ndarray:
    """Scores of three detectors, two of them nearly the same, one in whole numbers."""
    common = generator.normal(size=(count, 1))
    return np.concatenate(
        [common + 0.1 * generator.normal(size=(count, 2)), generator.integers(0, 6, (count, 1))], axis=1
    ).astype(np.float32)


def zeros(count: int) -> np.ndarray:
    return np.zeros(count, np.int64)


def test_each_kind_is_its_formula() -> None:
    p = np.random.default_rng(0).uniform(1e-6, 1, (3, 50))
    fisher, harmonic, weighted = (fusion(np.log(p)) for fusion in FUSIONS)
    assert fisher == pytest.approx(-2 * np.log(p.prod(axis=0)), rel=1e-6)
    assert harmonic == pytest.approx(-np.log(3 / (1 / p).sum(axis=0)), rel=1e-6, abs=1e-7)
    assert weighted == pytest.approx(-np.log(p[0] ** 0.7 * p[2] ** 0.3), rel=1e-6)


def test_the_harmonic_mean_does_not_overflow() -> None:
    logs = np.array([[-5000.0], [-1.0], [-4000.0]])
    assert FUSIONS[1](logs) == pytest.approx(5000 - np.log(3))


@EVERY
def test_a_score_that_is_not_finite_counts_as_the_largest(fusion: Fusion) -> None:
    logs = np.array([[-1.0, -np.inf, -1.0], [-1.0, -1.0, -np.inf], [-2.0, -2.0, -2.0]])
    assert fusion(logs)[1:].tolist() == [LARGEST, LARGEST]  # the second detector weighs nothing
    assert 0 <= fusion(logs)[0] < 10


@EVERY
def test_it_never_falls_as_a_score_grows(fusion: Fusion) -> None:
    generator = np.random.default_rng(1)
    made = Calibration.from_clean(dependent(generator, 80), dependent(generator, 80), fusion=fusion)
    scores = np.repeat(3 * dependent(generator, 60), 40, axis=0).reshape(60, 40, 3)
    for detector in range(3):
        grown = scores.copy()
        grown[:, :, detector] = np.linspace(-8, 30, 40)
        fused = np.stack([made.fuse(row) for row in grown])
        p = np.stack([made.fused_p_values(row, zeros(40)) for row in grown])
        assert (np.diff(fused, axis=1) >= 0).all()
        assert (np.diff(p, axis=1) <= 0).all()
        assert (fused[:, -1] > fused[:, 0]).all() == (fusion.weights is None or detector != 1)


@EVERY
def test_the_rate_over_many_calibrations_is_kept_whatever_depends_on_what(fusion: Fusion) -> None:
    generator, n, alpha, repeats = np.random.default_rng(2), 59, 0.05, 2000
    fired = 0
    for _ in range(repeats):
        first, second, new = (dependent(generator, count) for count in (30, n, 1))
        made = Calibration.from_clean(first, second, fusion=fusion)
        fired += int(made.fused_p_values(new, zeros(1))[0] * (n + 1) <= alpha_rank(alpha, n) + 0.5)
    rate = alpha_rank(alpha, n) / (n + 1)
    assert abs(fired / repeats - rate) < 3 * np.sqrt(rate * (1 - rate) / repeats)


@pytest.mark.parametrize("kind", FUSION_KINDS)
def test_copies_of_one_detector_change_no_p_value(kind: str) -> None:
    """As they count one sign K times, T grows by a factor or not at all, for clean images too."""
    first, second, new = np.random.default_rng(3).normal(size=(3, 90, 1)).astype(np.float32)
    p = []
    for copies in (1, 4):
        weights = np.full(copies, 1 / copies) if kind == "weighted" else None
        many = [np.repeat(scores, copies, axis=1) for scores in (first, second, new)]
        made = Calibration.from_clean(many[0], many[1], fusion=Fusion(kind=kind, weights=weights))  # type: ignore[arg-type]
        p.append(made.fused_p_values(many[2], zeros(90)))
    np.testing.assert_allclose(p[0], p[1], atol=1.01 / 91)  # rounding may make or break a tie


@EVERY
def test_it_survives_its_file(fusion: Fusion) -> None:
    generator = np.random.default_rng(4)
    made = Calibration.from_clean(dependent(generator, 40), dependent(generator, 40), fusion=fusion)
    read = Calibration.from_bytes(made.to_bytes())
    scores = dependent(generator, 20)
    assert read.fusion.kind == fusion.kind
    assert np.array_equal(read.fuse(scores), made.fuse(scores))
    assert read.to_bytes() == made.to_bytes()


@pytest.mark.parametrize(
    ("kind", "weights", "says"),
    [
        ("stouffer", None, "fusion: expected one of fisher, harmonic, weighted, got 'stouffer'"),
        ("weighted", None, "expected them with weighted only, got none with weighted"),
        ("fisher", WEIGHTS, "expected them with weighted only, got some with fisher"),
        ("weighted", np.array([1.0, -0.1, 0.0]), "expected numbers of at least 0, not all 0"),
        ("weighted", np.zeros(3), "expected numbers of at least 0, not all 0"),
        ("weighted", np.array([1.0, np.nan, 0.0]), "expected numbers of at least 0, not all 0"),
        ("weighted", WEIGHTS[:2], "fusion_weights: expected 3, one a detector, got 2"),
        ("weighted", WEIGHTS.astype(np.float32), "expected float64 of 1 axis"),
    ],
)
def test_what_is_no_fusion_is_refused(kind: str, weights: np.ndarray | None, says: str) -> None:
    clean = dependent(np.random.default_rng(5), 20)
    with pytest.raises(ValueError, match=says):
        Calibration.from_clean(clean, clean, fusion=Fusion(kind=kind, weights=weights))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*/")), ids=lambda path: path.name)
def test_a_bundle_of_before_is_fishers_bit_for_bit(path: Path) -> None:
    made = load_bundle(path).calibration
    assert made.fusion.kind == "fisher"
    assert made.by_class is None
    assert made.to_bytes() == (path / "calibration.npz").read_bytes()
    rows = made.detector_scores
    spread = np.random.default_rng(6).uniform(-0.5, 2, (len(rows), 300)) * (rows[:, -1:] - rows[:, :1])
    scores = (rows[:, :1] + spread).T.astype(np.float32)
    logs = [smooth_log_p(scores[:, k], row) for k, row in enumerate(rows)]
    fused = np.asarray(np.minimum(-2.0 * np.sum(logs, axis=0), LARGEST), dtype=np.float32)
    assert np.array_equal(made.fuse(scores), fused)
    assert np.array_equal(made.fused_p_values(scores, zeros(300)), p_values(fused, made.fused_scores))
    assert np.array_equal(made.suspicion(scores, zeros(300)), fused)
