from typing import Any

import pytest
import torch
from torch import Tensor

from service.errors import SetupError
from tests.training.attacks.adaptive.toys import Digits, generator, two_logits
from training.attacks import Square
from training.attacks.adaptive import AcceptedSquare
from training.attacks.threat import named_norm


def halves(images: Tensor) -> tuple[Tensor, Tensor]:
    """Class 1 where the upper half is brighter than 0.6; a bright lower half is suspicious."""
    upper, lower = images.flatten(2).mean(dim=1).chunk(2, dim=1)
    return two_logits(10 * (0.6 - upper.mean(dim=1))), lower.mean(dim=1)


IMAGES = (torch.full((6, 1, 8, 8), 128.0) + torch.arange(6).view(6, 1, 1, 1)) / 255
LABELS = torch.zeros(6, dtype=torch.long)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_it_finds_is_wrong_and_accepted(norm: Any) -> None:
    eps = 50 / 255 if norm == "linf" else 1.6
    attack = AcceptedSquare(square=Square(norm=norm, eps=eps, queries=300), threshold=0.5)
    found = attack(halves, IMAGES, LABELS, generator())
    logits, suspicion = halves(found.images)
    won = (logits.argmax(dim=1) == 1) & (suspicion <= 0.5)
    assert won.float().mean() > 0.8
    assert torch.equal(found.accepted_and_wrong(0.5), won)
    assert torch.allclose(suspicion, found.scores)
    assert named_norm(norm).size(found.images - IMAGES).max() <= eps + 1e-6
    levels = found.images * 255
    assert (levels - levels.round()).abs().max() < 1e-3
    assert (found.steps[won] < 300).all()
    assert (found.steps >= 1).all()


def test_success_after_fewer_queries_can_be_told() -> None:
    def after(queries: int) -> Tensor:
        attack = AcceptedSquare(square=Square(eps=50 / 255, queries=queries, p_init=0.8), threshold=0.5)
        found = attack(halves, IMAGES, LABELS, generator())
        return found.steps

    assert (after(5) <= 5).all()


def test_an_image_that_is_wrong_and_accepted_already_costs_nothing() -> None:
    attack = AcceptedSquare(square=Square(eps=0.2, queries=50), threshold=0.6)
    found = attack(halves, IMAGES, torch.ones(6, dtype=torch.long), generator())
    assert torch.equal(found.images, IMAGES)
    assert found.steps.tolist() == [0] * 6


@pytest.mark.parametrize("wanted", [1, 2])
def test_a_target_class_is_led_to(wanted: int) -> None:
    def three(images: Tensor) -> tuple[Tensor, Tensor]:
        upper = images.flatten(2).mean(dim=1).chunk(2, dim=1)[0].mean(dim=1)
        return torch.stack([torch.zeros_like(upper), upper - 0.6, 0.4 - upper], dim=1), 0 * upper

    attack = AcceptedSquare(square=Square(eps=50 / 255, queries=300), threshold=0.5)
    found = attack(three, IMAGES, LABELS, generator(), targets=torch.full((6,), wanted))
    assert found.found.all()
    assert three(found.images)[0].argmax(dim=1).tolist() == [wanted] * 6


def test_an_image_does_not_depend_on_the_others_and_the_target_is_left_as_found(digits: Digits) -> None:
    threshold = float(digits.calibration.fused_scores[-5])
    attack = AcceptedSquare(square=Square(eps=0.2, queries=25), threshold=threshold)
    modes = [module.training for module in digits.target.modules()]
    together = attack(digits.target, digits.images, digits.labels, generator())
    images = digits.images.clone()
    images[1::2] = 0.0
    among_others = attack(digits.target, images, digits.labels, generator())
    assert torch.allclose(together.images[::2], among_others.images[::2], atol=1e-5)
    assert [module.training for module in digits.target.modules()] == modes


def test_a_suspicion_that_is_not_finite_is_not_accepted() -> None:
    def lost(images: Tensor) -> tuple[Tensor, Tensor]:
        return two_logits(torch.full((len(images),), -1.0)), torch.full((len(images),), float("nan"))

    found = AcceptedSquare(square=Square(eps=0.1, queries=3), threshold=0.0)(lost, IMAGES, LABELS, generator())
    assert not found.found.any()
    assert found.steps.tolist() == [3] * 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": float("nan")}, "threshold: expected a finite number, got nan"),
        ({"threshold": float("inf")}, "threshold: expected a finite number, got inf"),
        ({"scale": 0.0}, "scale: expected a number above 0, got 0.0"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        AcceptedSquare(**{"square": Square(eps=0.1), "threshold": 1.0, **changes})


def test_images_that_are_not_of_8_bits_are_refused() -> None:
    attack = AcceptedSquare(square=Square(eps=0.1), threshold=1.0)
    with pytest.raises(SetupError, match="images: expected whole multiples of 1/255"):
        attack(halves, IMAGES + 0.001, LABELS, generator())
