from typing import Any

import pytest
import torch
from torch import Tensor

from service.errors import SetupError
from tests.training.attacks.adaptive.toys import Digits, generator, two_logits
from training.attacks.adaptive import BoundaryWalk
from training.attacks.threat import named_norm

WAY = torch.randn(16, generator=generator(9), dtype=torch.float64)
WAY = WAY / WAY.norm()


def beyond(images: Tensor) -> tuple[Tensor, Tensor]:
    """Class 1 more than 0.3 along a direction; suspicious where the last pixel is high, which is no matter near it."""
    flat = images.flatten(1)
    return two_logits(0.3 - (flat - 0.5) @ WAY.to(flat)), flat[:, -1]


CLEAN = torch.full((5, 1, 4, 4), 0.5, dtype=torch.float64)
STARTS = (CLEAN + 0.4 * WAY.sign().view(1, 1, 4, 4)).clamp(0, 1)
STARTS = (STARTS + 0.05 * torch.rand(STARTS.shape, generator=generator(8), dtype=torch.float64)).clamp(0, 1)
LABELS = torch.zeros(5, dtype=torch.long)
NEAREST = {"l2": 0.3, "linf": 0.3 / float(WAY.abs().sum())}


def walk(norm: Any, eps: float, **changes: Any) -> BoundaryWalk:
    settings = {"threshold": 1.0, "starts": STARTS, "rounds": False, "probes": 60, "turns": 8, **changes}
    return BoundaryWalk(norm=norm, eps=eps, **settings)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_it_comes_near_to_the_nearest_success_and_not_nearer(norm: Any) -> None:
    found = walk(norm, 1.25 * NEAREST[norm])(beyond, CLEAN, LABELS, generator())
    assert found.found.all()
    assert named_norm(norm).size(found.images - CLEAN).max() <= 1.25 * NEAREST[norm] * (1 + 1e-6)
    none = walk(norm, 0.95 * NEAREST[norm])(beyond, CLEAN, LABELS, generator())
    assert not none.found.any()
    assert (none.steps > found.steps).all()
    assert named_norm(norm).size(none.images - CLEAN).max() <= 0.95 * NEAREST[norm] * (1 + 1e-6)


def test_the_first_bisection_may_do() -> None:
    found = walk("l2", 1.3)(beyond, CLEAN, LABELS, generator())
    assert found.found.all()
    assert (found.steps == 1 + 8).all()  # the start, and 2 log2(16) halvings


def test_what_is_rejected_does_not_count() -> None:
    def notices(images: Tensor) -> tuple[Tensor, Tensor]:
        """Suspicious unless the change keeps to the direction of the starts in its first pixel."""
        logits, _ = beyond(images)
        return logits, -(images.flatten(1)[:, 0] - 0.5) * WAY[0].sign()

    found = walk("l2", 0.8, threshold=-0.2)(notices, CLEAN, LABELS, generator())
    assert found.accepted_and_wrong(-0.2).all()
    assert ((found.images - CLEAN).flatten(1)[:, 0].abs() >= 0.2 - 1e-6).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_8_bit_images_are_found_inside_the_ball(digits: Digits, norm: Any) -> None:
    threshold = float(digits.calibration.fused_scores[-10])
    with torch.no_grad():
        logits, suspicion = digits.target(digits.images)
    passes = (logits.argmax(dim=1) == digits.labels) & (suspicion <= threshold)
    rows = torch.nonzero(passes)[:, 0]
    starts = torch.stack([digits.images[rows][digits.labels[rows] != digits.labels[row]][0] for row in rows])
    eps = 3.0 if norm == "l2" else 0.6
    attack = BoundaryWalk(norm=norm, eps=eps, threshold=threshold, starts=starts, turns=3, probes=20)
    found = attack(digits.target, digits.images[rows], digits.labels[rows], generator())
    with torch.no_grad():
        logits, suspicion = digits.target(found.images)
    won = (logits.argmax(dim=1) != digits.labels[rows]) & (suspicion <= threshold)
    assert won.float().mean() > 0.3
    assert torch.equal(found.accepted_and_wrong(threshold), won)
    assert named_norm(norm).size(found.images - digits.images[rows]).max() <= eps + 1e-5
    levels = found.images * 255
    assert (levels - levels.round()).abs().max() < 1e-3


def test_an_image_does_not_depend_on_the_others() -> None:
    together = walk("l2", 0.35, turns=3)(beyond, CLEAN, LABELS, generator())
    starts = STARTS.clone()
    starts[1::2] = CLEAN[1::2]  # these are given up at once
    among_others = walk("l2", 0.35, turns=3, starts=starts)(beyond, CLEAN, LABELS, generator())
    assert torch.allclose(together.images[::2], among_others.images[::2])
    assert together.steps[::2].tolist() == among_others.steps[::2].tolist()
    assert among_others.steps[1::2].tolist() == [1, 1]
    assert torch.equal(among_others.images[1::2], CLEAN[1::2])
    assert not among_others.found[1::2].any()


def test_an_image_that_is_wrong_and_accepted_already_costs_nothing() -> None:
    found = walk("l2", 0.35)(beyond, CLEAN, LABELS + 1, generator())
    assert found.found.all()
    assert torch.equal(found.images, CLEAN)
    assert found.steps.tolist() == [0] * 5


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"eps": 0.0}, ValueError, "boundary walk: expected eps above 0, got 0"),
        ({"norm": "l1"}, SetupError, "norm: expected one of linf, l2, got 'l1'"),
        ({"turns": 0}, SetupError, "turns: expected a number of at least 1, got 0"),
        ({"probes": 0}, SetupError, "probes: expected a number of at least 1, got 0"),
        ({"threshold": float("inf")}, SetupError, "threshold: expected a finite number, got inf"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BoundaryWalk(**{"eps": 0.1, "threshold": 1.0, "starts": STARTS, **changes})


def test_starts_of_another_shape_are_refused() -> None:
    with pytest.raises(SetupError, match=r"starts: expected \(5, 1, 4, 4\), got \(4, 1, 4, 4\); choose one for each"):
        walk("l2", 0.35, starts=STARTS[:4])(beyond, CLEAN, LABELS, generator())
