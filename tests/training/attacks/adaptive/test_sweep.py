from typing import Any

import pytest
import torch
from torch import Tensor

from service.errors import SetupError
from tests.training.attacks.adaptive.toys import generator, two_logits
from training.attacks.adaptive import LagrangianSweep, Loop, Target

LOOP = Loop(norm="l2", eps=0.5, step=0.05, steps=12, rounds=False)
IMAGES = torch.full((4, 1, 1, 2), 0.5, dtype=torch.float64)
NEEDED = torch.tensor([0.02, 0.5, 7.0, 60.0], dtype=torch.float64)


def below(needed: Tensor) -> Target:
    """Fools only where the Lagrangian's weight is below what the image needs, told by the way that it went.

    With margin x_1 and suspicion x_2 the raw Lagrangian goes along (1, weight).
    """

    def target(images: Tensor) -> tuple[Tensor, Tensor]:
        change = images.flatten(1) - 0.5
        gone = change.detach()
        fools = (gone[:, 0] < -1e-6) & (gone[:, 1] / gone[:, 0].clamp_max(-1e-9) < needed)
        return two_logits(change[:, 0] - gone[:, 0] + torch.where(fools, -1.0, 1.0)), change[:, 1]

    return target


def test_the_bisection_closes_in_on_the_largest_weight_that_crosses() -> None:
    sweep = LagrangianSweep(loop=LOOP, bisections=8, saturates=False)
    found = sweep(below(NEEDED), IMAGES, torch.zeros(4, dtype=torch.long), generator())
    change = (found.images - IMAGES).flatten(1)
    weights = change[:, 1] / change[:, 0]
    assert (weights < NEEDED).all()
    assert (weights > 0.95 * NEEDED).all()


def test_the_ends_of_the_grid_are_searched_beyond() -> None:
    needed = torch.tensor([0.005, 500.0, 0.05, 2.0], dtype=torch.float64)
    sweep = LagrangianSweep(loop=LOOP, weights=(0.01, 100.0), bisections=6, saturates=False)
    found = sweep(below(needed), IMAGES, torch.zeros(4, dtype=torch.long), generator())
    change = (found.images - IMAGES).flatten(1)
    weights = change[:, 1] / change[:, 0]
    assert found.found.all()
    assert (weights[:2] > 0.85 * needed[:2]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": ()}, r"weights: expected numbers above 0 in rising order, got \(\); sort them"),
        ({"weights": (1.0, 0.1)}, "weights: expected numbers above 0 in rising order"),
        ({"weights": (0.0, 0.1)}, "weights: expected numbers above 0 in rising order"),
        ({"weights": (1.0, float("inf"))}, "weights: expected numbers above 0 in rising order"),
        ({"bisections": -1}, "bisections: expected a number of at least 0, got -1"),
        ({"scale": 0.0}, "scale: expected a number above 0, got 0.0"),
        ({"scale": float("nan")}, "scale: expected a number above 0, got nan"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        LagrangianSweep(loop=LOOP, **changes)
