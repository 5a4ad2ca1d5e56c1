from typing import Any

import numpy as np
import pytest
import torch

from service.detection.calibration import Calibration, smooth_log_p
from service.errors import SetupError
from tests.training.attacks.adaptive.toys import Digits
from training.attacks.adaptive import GraphTarget, SmoothLogP, SmoothSuspicion
from training.graph import torch_outputs

RANDOM = np.random.default_rng(0)
CLEAN = {
    "plain": RANDOM.normal(3, 2, 300),
    "ties": np.repeat([0.5, 1.0, 1.0, 2.5, 2.5, 2.5], 7),
    "one knot": np.full(20, 4.0),
    "one score": np.array([-1.5]),
    "two": np.array([0.0, 1.0]),
    "large": 1e6 + RANDOM.normal(0, 5, 100),
    "tiny": 1e-9 * RANDOM.exponential(1, 100),
}
ROWS = pytest.mark.parametrize("clean", CLEAN.values(), ids=CLEAN.keys())


def rising(values: np.ndarray) -> np.ndarray:
    return np.sort(values.astype(np.float32))


@ROWS
def test_the_curve_is_that_of_the_calibration(clean: np.ndarray) -> None:
    clean = rising(clean)
    spread = max(float(clean[-1] - clean[0]), 1.0)
    scores = np.concatenate([clean, np.linspace(clean[0] - spread, clean[-1] + 20 * spread, 500)])
    ours = SmoothLogP(clean)(torch.from_numpy(scores)).numpy()
    assert ours == pytest.approx(smooth_log_p(scores, clean), rel=1e-9, abs=1e-9)


@ROWS
def test_the_gradient_is_that_of_the_curve(clean: np.ndarray) -> None:
    clean = rising(clean)
    spread = max(float(clean[-1] - clean[0]), 1e-12)
    scores = torch.from_numpy(RANDOM.uniform(clean[0] - spread / 2, clean[-1] + spread / 2, 200)).requires_grad_(True)
    curve = SmoothLogP(clean)
    (gradients,) = torch.autograd.grad(curve(scores).sum(), scores)
    near = 1e-7 * spread
    with torch.no_grad():
        slopes = (curve(scores + near) - curve(scores - near)) / (2 * near)
    usual = (gradients - slopes).abs() <= 1e-3 * gradients.abs() + 1e-6 / spread
    assert usual.double().mean() > 0.98  # a knot may lie between the two


def test_scores_that_are_not_finite_count_as_the_largest_and_give_no_nan() -> None:
    calibration = Calibration.from_clean(*RANDOM.normal(size=(2, 50, 2)).astype(np.float32))
    scores = torch.tensor([[float("nan"), 0.0], [float("inf"), 0.0], [-float("inf"), 0.0]], requires_grad=True)
    suspicion = SmoothSuspicion(calibration)(scores)
    assert suspicion.detach().float().numpy() == pytest.approx(calibration.fuse(scores.detach().numpy()))
    (gradients,) = torch.autograd.grad(suspicion.sum(), scores)
    assert torch.isfinite(gradients).all()


def many_scores(calibration: Calibration) -> np.ndarray:
    """Inside the calibration, between its scores, on them and far beyond, (N, K)."""
    rows = calibration.detector_scores
    inside = RANDOM.uniform(rows[:, 0] - 1, rows[:, -1] + 1, (200, len(rows)))
    beyond = rows[:, -1] + RANDOM.exponential(50, (50, len(rows)))
    return np.concatenate([inside, beyond, rows.T]).astype(np.float32)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    first, second = RANDOM.exponential(3, (2, 150, 3)).astype(np.float32)
    first[:, 2] = np.round(first[:, 2])  # ties
    return Calibration.from_clean(first, second)


def test_fused_is_the_calibrations_up_to_float32(calibration: Calibration) -> None:
    scores = many_scores(calibration)
    ours = SmoothSuspicion(calibration)(torch.from_numpy(scores)).float().numpy()
    assert ours == pytest.approx(calibration.fuse(scores), rel=3e-7, abs=1e-9)


def test_one_detector_and_the_largest_are_minus_log_p(calibration: Calibration) -> None:
    scores = many_scores(calibration)
    each = np.stack([-smooth_log_p(scores[:, k], row) for k, row in enumerate(calibration.detector_scores)], axis=1)
    tensor = torch.from_numpy(scores)
    for k in range(3):
        assert SmoothSuspicion(calibration, k)(tensor).numpy() == pytest.approx(each[:, k], rel=1e-9, abs=1e-12)
    largest = SmoothSuspicion(calibration, "largest")(tensor).numpy()
    assert largest == pytest.approx(each.max(axis=1), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("of", [3, -1, "mean"])
def test_an_unknown_suspicion_is_refused(calibration: Calibration, of: Any) -> None:
    with pytest.raises(SetupError, match="suspicion: expected fused, largest or a detector from 0 to 2, got"):
        SmoothSuspicion(calibration, of)


def test_a_bundle_is_attacked_as_it_decides(digits: Digits) -> None:
    outputs = torch_outputs(digits.target.graph, digits.bytes8)
    with torch.no_grad():
        logits, suspicion = digits.target(digits.images)
    assert logits.numpy() == pytest.approx(outputs.logits, abs=1e-5)
    assert suspicion.float().numpy() == pytest.approx(digits.calibration.fuse(outputs.scores), rel=1e-4, abs=1e-5)


def test_a_bundle_has_a_gradient_by_its_images(digits: Digits) -> None:
    for of in ("fused", "largest", 0, 1):
        images = digits.images.clone().requires_grad_(True)
        _, suspicion = GraphTarget(digits.target.graph, digits.calibration, of)(images)
        (gradients,) = torch.autograd.grad(suspicion.sum(), images)
        assert torch.isfinite(gradients).all()
        assert (gradients.flatten(1).abs().amax(dim=1) > 0).float().mean() > 0.5
