import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.detection.calibration import Calibration, smooth_log_p
from service.detection.fusion import FISHER, Fusion
from service.detection.rows import ByClass
from service.errors import SetupError
from tests.training.attacks.adaptive.toys import Digits, generator
from training.attacks.adaptive import AdaptivePgd, GraphTarget, Loop, RowOrder, Selective, SmoothLogP, SmoothSuspicion
from training.attacks.rounding import nearest_8_bit
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
FUSED = pytest.mark.parametrize(
    "fusion",
    [FISHER, Fusion(kind="harmonic"), Fusion(kind="weighted", weights=np.array([0.6, 0.0, 0.4]))],
    ids=lambda fusion: fusion.kind,
)
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


@FUSED
def test_scores_that_are_not_finite_count_as_the_largest_and_give_no_nan(fusion: Fusion) -> None:
    calibration = Calibration.from_clean(*RANDOM.normal(size=(2, 50, 3)).astype(np.float32), fusion=fusion)
    scores = torch.tensor([[0.1, bad, 0.0] for bad in (float("nan"), float("inf"), -float("inf"))], requires_grad=True)
    suspicion = SmoothSuspicion(calibration)(scores)
    assert suspicion.detach().float().numpy() == pytest.approx(calibration.fuse(scores.detach().numpy()))
    (gradients,) = torch.autograd.grad(suspicion.sum(), scores)
    assert torch.isfinite(gradients).all()


def torch_labels(digits: Digits, images: np.ndarray) -> np.ndarray:
    return np.asarray(torch_outputs(digits.target.graph, images).logits.argmax(axis=1))


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


@FUSED
def test_fused_is_the_calibrations_up_to_float32(calibration: Calibration, fusion: Fusion) -> None:
    calibration = dataclasses.replace(calibration, fusion=fusion)
    scores = many_scores(calibration)
    ours = SmoothSuspicion(calibration)(torch.from_numpy(scores)).float().numpy()
    assert ours == pytest.approx(calibration.fuse(scores), rel=3e-7, abs=1e-9)


def by_class(calibration: Calibration) -> Calibration:
    predicted = RANDOM.choice(4, calibration.fused_scores.size, p=[0.5, 0.3, 0.1, 0.1])
    return dataclasses.replace(calibration, by_class=ByClass.of(predicted, 4, 30))


def test_by_class_the_suspicion_is_the_services_and_leads_where_the_statistic_leads(calibration: Calibration) -> None:
    calibration = by_class(calibration)
    scores = torch.from_numpy(many_scores(calibration))
    labels = torch.from_numpy(RANDOM.integers(0, 4, len(scores)))
    statistic = SmoothSuspicion(calibration)(scores).requires_grad_(True)
    suspicion = RowOrder(calibration.rows)(statistic, labels)
    assert suspicion.detach().numpy() == pytest.approx(calibration.suspicion(scores.numpy(), labels.numpy()), rel=1e-6)
    (slopes,) = torch.autograd.grad(suspicion.sum(), statistic)
    least = torch.tensor([float(row[0]) for row in calibration.rows.scores])
    above = statistic > least[calibration.rows.of_labels(labels.numpy())]
    assert (slopes[above] > 0).all()
    assert (slopes >= 0).all()


def test_by_class_an_attack_keeps_the_largest_p_value_and_not_the_smallest_statistic(digits: Digits) -> None:
    """Every image that it looked at and that fools has a p-value that is no larger."""
    rows = ByClass.of(torch_labels(digits, digits.clean_bytes8), 10, 15)
    calibration = dataclasses.replace(digits.calibration, by_class=rows)
    assert len(calibration.rows.scores) > 3
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    class Watched(GraphTarget):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            logits, _, scores = self.graph.score(images)
            predicted = logits.argmax(dim=1)
            p = calibration.fused_p_values(scores.detach().numpy(), predicted.numpy())
            seen.append((np.where(predicted == digits.labels, 0.0, p), self.suspicion(scores).detach().numpy()))
            return super().forward(images)

    target = Watched(digits.target.graph, calibration)
    found = AdaptivePgd(loop=Loop(eps=0.3, steps=25), rule=Selective())(
        target, digits.images, digits.labels, generator(0)
    )
    largest = np.stack([p for p, _ in seen]).max(axis=0)  # of each image over all looks
    outputs = torch_outputs(digits.target.graph, nearest_8_bit(found.images).contiguous().numpy())
    kept = calibration.fused_p_values(outputs.scores, outputs.logits.argmax(axis=1))
    fools = found.found.numpy()
    assert fools.sum() >= 6
    assert kept[fools] == pytest.approx(largest[fools], abs=1e-9)


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
