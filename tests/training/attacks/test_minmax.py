from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks import Pgd
from training.attacks.ball import BALL_NORMS, Ball
from training.attacks.ball_pgd import BallPgd, SteepestOfBalls
from training.attacks.minmax import MinMax, lead, next_weights
from training.attacks.objectives import cross_entropy
from training.attacks.projection import into_ball
from training.models import build_model
from training.sections import ModelConfig

EPS = {"linf": 0.1, "l2": 0.7, "l1": 3.0, "l0": 6.0}
BALLS = tuple(Ball(norm=norm, eps=EPS[norm]) for norm in BALL_NORMS)
EACH = pytest.mark.parametrize("ball", BALLS, ids=BALL_NORMS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_model(ModelConfig(width=4), 1, 8, 8, classes=4).eval()


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    return torch.rand(count, 1, 8, 8, generator=generator(5)), torch.arange(count) % 4


SETTINGS = MinMax(ball=Ball(norm="linf", eps=0.2), steps=30, alpha=5, beta=50, gamma=3)
LOW, HIGH = torch.full((2, 1, 1, 3), -0.5), torch.full((2, 1, 1, 3), 0.5)
START = torch.zeros(2, 1, 1, 3)


def losses_of(deltas: Tensor) -> Tensor:
    """(N, 2): domains that pull in other directions, the second harder."""
    first = (deltas[..., 0] - 0.3).square() + deltas[..., 2].square()
    second = 4 * (deltas[..., 0] + 0.3).square() + (deltas[..., 1] - 1).square()
    return torch.cat([first.flatten(1), second.flatten(1)], dim=1)


def test_frozen_losses_draw_the_weights_to_their_closed_form() -> None:
    losses, weights = torch.tensor([[1.0, 3.0, 2.5]]), torch.full((1, 3), 1 / 3)
    for _ in range(2000):
        weights = next_weights(weights, losses, beta=50, gamma=3)
        assert weights.min() >= 0
        assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    assert weights.flatten().tolist() == pytest.approx([0, 0.583333, 0.416667], abs=1e-4)


def test_the_harder_domain_gets_the_larger_weight_and_the_budget_is_kept() -> None:
    found = SETTINGS(losses_of, START, LOW, HIGH)
    assert found.weights.min() >= 0
    torch.testing.assert_close(found.weights.sum(dim=1), torch.ones(2))
    assert (found.weights[:, 1] > found.weights[:, 0]).all()
    assert found.deltas.abs().max() <= 0.2
    averaged = replace(SETTINGS, weights="average")(losses_of, START, LOW, HIGH)
    assert torch.equal(averaged.weights, torch.full((2, 2), 0.5))


def test_dear_weights_make_the_average_attack() -> None:
    dear = replace(SETTINGS, beta=1e9, gamma=1e9)(losses_of, START, LOW, HIGH)
    average = replace(SETTINGS, weights="average")(losses_of, START, LOW, HIGH)
    torch.testing.assert_close(dear.deltas, average.deltas)
    torch.testing.assert_close(dear.weights, average.weights)


def test_held_weights_are_used_as_they_are() -> None:
    held = replace(SETTINGS, weights=(0.0, 1.0))(losses_of, START, LOW, HIGH)
    assert torch.equal(held.weights, torch.tensor([[0.0, 1.0]] * 2))
    assert held.deltas.flatten(1)[0].tolist() == pytest.approx([-0.2, 0.2, 0.0])


def test_one_domain_is_projected_descent() -> None:
    def one(deltas: Tensor) -> Tensor:
        return losses_of(deltas)[:, 1:]

    found = SETTINGS(one, START, LOW, HIGH)
    deltas = START.clone()
    for _ in range(SETTINGS.steps):
        deltas.requires_grad_(True)
        (gradients,) = torch.autograd.grad(one(deltas).sum(), deltas)
        deltas = into_ball(deltas.detach() - gradients / 5, LOW, HIGH, "linf", 0.2)
    torch.testing.assert_close(found.deltas, deltas)
    assert torch.equal(found.weights, torch.ones(2, 1))


def test_each_image_has_weights_and_a_perturbation_of_its_own() -> None:
    low = torch.stack([LOW[0], 0 * LOW[0]])  # the second image may only get brighter
    together = SETTINGS(losses_of, START, low, HIGH)
    for n in (0, 1):
        alone = SETTINGS(losses_of, START[n : n + 1], low[n : n + 1], HIGH[n : n + 1])
        torch.testing.assert_close(alone.deltas, together.deltas[n : n + 1])
        torch.testing.assert_close(alone.weights, together.weights[n : n + 1])
    assert not torch.allclose(together.weights[0], together.weights[1])


def test_normalised_gradients_make_steps_of_known_length() -> None:
    once = replace(SETTINGS, steps=1, alpha=10, normalise=True, ball=Ball(norm="l2", eps=9))(
        losses_of, START, LOW, HIGH
    )
    assert once.deltas.flatten(1).norm(dim=1).tolist() == pytest.approx([0.1, 0.1])


def test_the_loss_is_the_lead_of_the_clean_label_and_ends_at_50() -> None:
    logits = torch.tensor([[7.0, 3.0, 2.0], [0.0, 60.0, 0.0]])
    assert lead(logits, torch.tensor([0, 0])).tolist() == [54.0, 0.0]
    assert lead(logits, torch.tensor([1, 1])).tolist() == [46.0, 110.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 100.0}, "gamma: expected less than 2 beta, 100, got 100; at more the weights swing"),
        ({"gamma": float("nan")}, "gamma: expected a number of at least 0, got nan"),
        ({"alpha": 0.0}, "alpha: expected a number above 0, got 0"),
        ({"beta": float("inf")}, "beta: expected a number above 0, got inf"),
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"weights": (0.5, 0.6)}, r"weights: expected none below 0 and a sum of 1, got \[0\.5, 0\.6\]"),
        ({"weights": (1.5, -0.5)}, "weights: expected none below 0"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        replace(SETTINGS, **changes)  # type: ignore[arg-type]


def test_held_weights_of_another_number_are_refused() -> None:
    with pytest.raises(SetupError, match="weights: expected one for each of 2 domains, got 3"):
        replace(SETTINGS, weights=(0.5, 0.25, 0.25))(losses_of, START, LOW, HIGH)


@EACH
def test_ball_pgd_keeps_its_budget_and_raises_the_loss(model: nn.Module, ball: Ball) -> None:
    images, labels = batch(20)
    attacked = BallPgd(ball=ball, steps=10, spread=0.1)(model, images, labels, generator())
    assert not attacked.requires_grad
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert ball.size(attacked - images).max() <= ball.eps + 1e-5
    gains = cross_entropy(model(attacked), labels) - cross_entropy(model(images), labels)
    assert (gains > 0).all()


def test_in_linf_it_is_pgd(model: nn.Module) -> None:
    images, labels = batch()
    ours = BallPgd(ball=BALLS[0], steps=5)(model, images, labels, generator(3))
    torch.testing.assert_close(ours, Pgd(eps=0.1, steps=5)(model, images, labels, generator(3)))


def test_msd_stays_in_one_of_its_balls_and_is_no_weaker_than_its_start(model: nn.Module) -> None:
    images, labels = batch(20)
    attacked = SteepestOfBalls(balls=BALLS[:3], steps=8, spread=0.1)(model, images, labels, generator())
    within = torch.stack([ball.size(attacked - images) <= ball.eps + 1e-5 for ball in BALLS[:3]])
    assert within.any(dim=0).all()
    assert (cross_entropy(model(attacked), labels) > cross_entropy(model(images), labels)).all()
    one = SteepestOfBalls(balls=BALLS[:1], steps=8)(model, images, labels, generator())
    assert cross_entropy(model(attacked), labels).mean() >= cross_entropy(model(one), labels).mean() - 0.05


def test_attacks_leave_the_model_as_found(model: nn.Module) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for attack in (BallPgd(ball=BALLS[2], steps=2), SteepestOfBalls(balls=BALLS, steps=2)):
        attack(model, *batch(), generator())
        assert model.training
        assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BallPgd(ball=BALLS[0], steps=0), "steps of at least 1, got 0"),
        (lambda: BallPgd(ball=BALLS[0], step=-1), "step of at least 0, got -1"),
        (lambda: BallPgd(ball=BALLS[0], spread=0), "spread above 0, at most 1, got 0"),
        (lambda: SteepestOfBalls(balls=()), "at least one ball, got none"),
    ],
    ids=["steps", "step", "spread", "balls"],
)
def test_wrong_settings_of_attacks_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
