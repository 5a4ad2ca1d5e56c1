import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from service.errors import SetupError
from training.attacks.ball import BALL_NORMS, Ball
from training.attacks.projection import into_ball, onto_simplex
from training.shard import Shard, ShardGenerator

EPS = {"linf": 0.3, "l2": 1.0, "l1": 2.0, "l0": 5.0}
LENGTHS = {
    "linf": lambda d: d.abs().amax(dim=1),
    "l2": lambda d: d.norm(dim=1),
    "l1": lambda d: d.abs().sum(dim=1),
    "l0": lambda d: (d != 0).sum(dim=1).float(),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 6, seed: int = 1) -> Tensor:
    """With values at both ends, as those of digits."""
    return (2 * torch.rand(count, 1, 4, 4, generator=generator(seed)) - 0.5).clamp(0, 1)


@pytest.mark.parametrize(
    ("values", "norm", "eps", "box", "expected"),
    [
        ((3.0, 4.0), "l2", 1, 0.75, (0.661438, 0.75)),
        ((3.0, 1.0), "l1", 2, 1.5, (1.5, 0.5)),
        ((3.0, -2.0, 1.0), "l0", 1, 1.0, (1.0, 0.0, 0.0)),
        ((0.5, -3.0), "linf", 1, 0.75, (0.5, -0.75)),
        ((3.0, 4.0), "l2", 1, 9.0, (0.6, 0.8)),
        ((0.1, -0.2), "l1", 2, 1.0, (0.1, -0.2)),
        ((0.0, 0.0), "l2", 1, 1.0, (0.0, 0.0)),
    ],
    ids=["l2", "l1", "l0", "linf", "l2 without the box", "l1 inside", "nothing"],
)
def test_known_projections(
    values: tuple[float, ...], norm: str, eps: float, box: float, expected: tuple[float, ...]
) -> None:
    found = into_ball(torch.tensor([values]), torch.tensor(-box), torch.tensor(box), norm, eps)
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("norm", BALL_NORMS)
def test_a_projection_is_feasible_idempotent_and_of_each_image_alone(norm: str) -> None:
    clean = images()
    deltas = torch.randn(clean.shape, generator=generator(2))
    low, high = -clean, 1 - clean
    once = into_ball(deltas, low, high, norm, EPS[norm])
    assert LENGTHS[norm](once.flatten(1)).max() <= EPS[norm] * (1 + 1e-6)
    assert (once >= low).all()
    assert (once <= high).all()
    assert torch.equal(into_ball(once, low, high, norm, EPS[norm]), once)
    alone = [into_ball(deltas[n : n + 1], low[n : n + 1], high[n : n + 1], norm, EPS[norm]) for n in range(len(clean))]
    torch.testing.assert_close(torch.cat(alone), once, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_no_feasible_point_is_nearer(norm: str) -> None:
    clean = images(3)
    deltas = torch.randn(clean.shape, generator=generator(2)).double()
    low, high = (-clean).double(), (1 - clean).double()
    found = into_ball(deltas, low, high, norm, EPS[norm])
    for row in range(len(clean)):
        wanted = deltas[row].numpy().ravel()
        sides = list(zip(low[row].numpy().ravel(), high[row].numpy().ravel(), strict=True))
        # As a difference of two parts of one sign each, whose sum bounds the L1 length smoothly.
        parts = [(0.0, max(0.0, side[1])) for side in sides] + [(0.0, max(0.0, -side[0])) for side in sides]
        half = len(sides)

        def distance(both: np.ndarray, wanted: np.ndarray = wanted, half: int = half) -> float:
            return float(((both[:half] - both[half:] - wanted) ** 2).sum())

        def left(both: np.ndarray, half: int = half) -> float:
            length = both.sum() if norm == "l1" else np.sqrt(((both[:half] - both[half:]) ** 2).sum() + 1e-18)
            return float(EPS[norm] - length)

        solved = minimize(
            distance,
            np.full(2 * half, 0.01),
            bounds=parts,
            constraints={"type": "ineq", "fun": left},
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-12},
        )
        assert solved.success
        own = float(((found[row].numpy().ravel() - wanted) ** 2).sum())
        assert own == pytest.approx(solved.fun, rel=1e-4)


def test_l0_keeps_as_many_values_as_it_may() -> None:
    found = into_ball(torch.full((1, 9), 0.5), torch.tensor(-1.0), torch.tensor(1.0), "l0", 4)
    assert (found != 0).sum() == 4
    assert torch.equal(
        into_ball(torch.full((1, 3), 0.5), torch.tensor(-1.0), torch.tensor(1.0), "l0", 9),
        found[:, :0].new_full((1, 3), 0.5),
    )


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 6))
def test_weights_come_onto_the_simplex_at_the_nearest_point(seed: int, count: int) -> None:
    values = 3 * torch.randn(4, count, generator=generator(seed))
    weights = onto_simplex(values)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))
    torch.testing.assert_close(onto_simplex(weights), weights)
    others = torch.softmax(torch.randn(200, 1, count, generator=generator(seed + 1)), dim=2)
    assert ((weights - values).norm(dim=1) <= (others - values).norm(dim=2) + 1e-5).all()


@pytest.mark.parametrize("norm", BALL_NORMS)
def test_starts_and_steps_stay_images_of_the_ball(norm: str) -> None:
    ball, clean = Ball(norm=norm, eps=EPS[norm]), images()  # type: ignore[arg-type]
    start = ball.start(clean, generator())
    gradients = torch.randn(clean.shape, generator=generator(5))
    moved = ball.nearest(start + 9 * ball.direction(gradients, start, 0.1), clean)
    for places in (start, moved):
        assert places.min() >= 0
        assert places.max() <= 1
        assert ball.size(places - clean).max() <= ball.eps + 1e-5
        assert ball.size(places - clean).min() > 0


@pytest.mark.parametrize("norm", BALL_NORMS)
def test_processes_that_share_a_batch_start_where_one_alone_does(norm: str) -> None:
    ball, clean = Ball(norm=norm, eps=EPS[norm]), images()  # type: ignore[arg-type]
    halves = []
    for rank in range(2):
        draws = ShardGenerator()
        draws.shard = Shard(rank=rank, world=2)
        draws.manual_seed(4)
        halves.append(ball.start(clean[3 * rank : 3 * rank + 3], draws))
    torch.testing.assert_close(torch.cat(halves), ball.start(clean, generator(4)))


def test_an_l1_step_moves_the_largest_gradients_that_may_move() -> None:
    places = torch.tensor([1.0, 0.5, 0.0, 0.5]).view(1, 1, 1, 4)
    gradients = torch.tensor([9.0, -2.0, -5.0, 1.0]).view(1, 1, 1, 4)
    ball = Ball(norm="l1", eps=1)
    assert ball.direction(gradients, places, 0.25).flatten().tolist() == [0, -1, 0, 0]
    assert ball.direction(gradients, places, 1.0).flatten().tolist() == [0, -0.5, 0, 0.5]
    assert ball.direction(torch.zeros_like(places), places, 0.5).abs().sum() == 0


def test_a_scaled_ball_has_a_share_of_the_budget_and_l0_at_least_one_value() -> None:
    assert Ball(norm="l2", eps=2).scaled(0.25) == Ball(norm="l2", eps=0.5)
    assert Ball(norm="l0", eps=10).scaled(0.01) == Ball(norm="l0", eps=1)


@pytest.mark.parametrize(
    ("norm", "eps", "message"),
    [
        ("l3", 1, "norm: expected one of linf, l2, l1, l0, got 'l3'"),
        ("l1", float("nan"), "eps: expected a number above 0 for norm l1, got nan"),
        ("l2", 0, "eps: expected a number above 0 for norm l2, got 0"),
        ("linf", 8, "eps: expected at most 1 for norm linf, got 8"),
        ("l0", 2.5, r"eps: expected a whole number of values for norm l0, got 2\.5"),
    ],
)
def test_a_ball_that_makes_no_sense_is_refused(norm: str, eps: float, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        Ball(norm=norm, eps=eps)  # type: ignore[arg-type]
