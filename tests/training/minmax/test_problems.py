"""Losses, boxes and what counts as failing, on networks of which everything is known."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks.ball import BALL_NORMS, Ball
from training.attacks.minmax import MinMax
from training.minmax.experiment import attack, figures, outcomes, rounded
from training.minmax.problems import Ensemble, Problem, Transforms, Universal
from training.minmax.settings import KINDS, published
from training.minmax.subject import chosen_images, grouped
from training.minmax.transforms import TRANSFORMS


class Brightness(nn.Module):
    """Says 1 where the weighted mean of an image is above a bar, by a lead of that many times the steepness."""

    def __init__(self, bar: float, *, steepness: float = 20.0, rows: slice = slice(None)) -> None:
        super().__init__()
        self.bar, self.steepness, self.rows = bar, steepness, rows

    def forward(self, images: Tensor) -> Tensor:
        lead = self.steepness * (images[:, :, self.rows].mean(dim=(1, 2, 3)) - self.bar)
        return torch.stack([-lead / 2, lead / 2], dim=1)


def grey(*values: float) -> Tensor:
    """An 8-bit image of 4 x 4 for each value."""
    return (torch.tensor(values).view(-1, 1, 1, 1) * 255).round().expand(-1, 1, 4, 4).clone() / 255


def problem(kind: str) -> Problem:
    if kind == "ensemble":
        halves = [Brightness(0.5, rows=slice(0, 2)), Brightness(0.6, steepness=90.0, rows=slice(2, 4))]
        return Ensemble(halves, ("upper", "lower"), grey(0.45, 0.4, 0.3))
    if kind == "universal":
        return Universal(Brightness(0.5), torch.stack([grey(0.45, 0.42), grey(0.3, 0.55)]))
    return Transforms(Brightness(0.5), grey(0.44, 0.3))


SETTINGS = MinMax(ball=Ball(norm="linf", eps=0.2), steps=30, alpha=20, beta=50, gamma=3)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_losses_of_their_own_and_boxes_that_keep_images_images(kind: str) -> None:
    one = problem(kind)
    low, high = one.box
    deltas = low + (high - low) * torch.rand(low.shape, generator=torch.Generator().manual_seed(0))
    losses = one.losses(deltas)
    assert losses.shape[0] == len(low) == len(one.images)
    assert one.fails(deltas).shape == losses.shape
    for edge in (low, high):
        attacked = one.images + edge[:, None]
        assert attacked.min() >= 0
        assert attacked.max() <= 1
    alone = torch.cat([one.rows(slice(n, n + 1)).losses(deltas[n : n + 1]) for n in range(len(low))])
    torch.testing.assert_close(alone, losses)
    assert not one.fails(torch.zeros_like(low)).any()


def test_the_box_of_a_group_is_what_its_images_share() -> None:
    low, high = Universal(Brightness(0.5), torch.stack([grey(0.2, 0.9)])).box
    assert low.unique().tolist() == pytest.approx([-0.2])
    assert high.unique().tolist() == pytest.approx([25 / 255])


def test_universal_losses_are_those_of_each_image_of_the_group() -> None:
    one = problem("universal")
    delta = torch.full((2, 1, 4, 4), 0.06)
    assert one.fails(delta).tolist() == [[True, False], [False, False]]  # 0.45 passes the bar, 0.42 and 0.3 do not
    leads = [20 * (level / 255 + 0.06 - 0.5) for level in (115, 107)]
    assert one.losses(delta)[0].tolist() == pytest.approx([50 - leads[0], 50 - leads[1]], abs=1e-3)


def test_transforms_add_the_length_of_each_images_own_change() -> None:
    one = Transforms(Brightness(0.5), grey(0.44, 0.3))
    still = one.losses(torch.zeros(2, 1, 4, 4))
    moved = one.losses(torch.stack([torch.zeros(1, 4, 4), torch.full((1, 4, 4), 0.05)]))
    torch.testing.assert_close(moved[0], still[0])
    # identity: 20 x 0.05 nearer to the bar, and a quarter of the length 0.05 x 4.
    assert (moved[1, 0] - still[1, 0]).item() == pytest.approx(-1 + 0.25 * 0.2, abs=1e-4)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transformations_give_images_with_finite_gradients(name: str) -> None:
    images = torch.cat([torch.zeros(1, 2, 10, 8), torch.ones(1, 2, 10, 8), torch.rand(1, 2, 10, 8)]).requires_grad_()
    changed = TRANSFORMS[name](images)
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    changed.sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert (name == "identity") == torch.equal(changed, images)


def test_known_transformations() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4) / 16
    assert TRANSFORMS["mirrored"](image)[0, 0, 0].tolist() == [3 / 16, 2 / 16, 1 / 16, 0]
    assert TRANSFORMS["upside_down"](image)[0, 0, 0].tolist() == [12 / 16, 13 / 16, 14 / 16, 15 / 16]
    assert TRANSFORMS["brighter"](image)[0, 0, 3, 3].item() == 1
    assert TRANSFORMS["gamma"](image)[0, 0, 2, 0].item() == pytest.approx(0.5**1.3)
    large = torch.arange(100.0).view(1, 1, 10, 10) / 100
    assert TRANSFORMS["cropped"](large)[0, 0, [0, 0, 9, 9], [0, 9, 0, 9]].tolist() == pytest.approx(
        [0.11, 0.18, 0.81, 0.88]
    )


@pytest.mark.parametrize("norm", BALL_NORMS)
def test_rounded_perturbations_are_whole_levels_within_the_budget(norm: str) -> None:
    ball = Ball(norm=norm, eps={"linf": 0.3, "l2": 0.7, "l1": 1.5, "l0": 3}[norm])  # type: ignore[arg-type]
    clean = grey(0.0, 0.5, 1.0)
    attacked = ball.start(clean, torch.Generator().manual_seed(0))
    deltas = rounded(attacked - clean, norm, ball.eps)
    levels = (clean + deltas).double() * 255
    assert (levels - levels.round()).abs().max() < 1e-3
    assert ball.size(deltas).max() <= (76 / 255 if norm == "linf" else ball.eps) + 1e-6
    torch.testing.assert_close(rounded(deltas, norm, ball.eps), deltas)
    assert deltas.abs().max() > 0


def test_min_max_defeats_what_the_average_leaves() -> None:
    # The lower half's network has the steeper loss: equal weights spend the L2 budget there and leave the upper one.
    halves = [Brightness(0.5, rows=slice(0, 2)), Brightness(0.5, steepness=400.0, rows=slice(2, 4))]
    one = Ensemble(halves, ("upper", "lower"), grey(0.4, 0.42))
    settings = MinMax(ball=Ball(norm="l2", eps=0.45), steps=60, alpha=100, beta=30, gamma=3)
    found = outcomes(one, settings, seed=0, starts_at_0=False, progress=lambda line: None)
    assert list(found) == ["minmax", "average", "held", "single_upper", "single_lower"]
    metrics = figures(one, found)
    assert metrics["minmax_asr_all"] == 1
    assert metrics["average_asr_all"] < 1
    assert metrics["asr_gain"] == metrics["minmax_asr_all"] - metrics["average_asr_all"]
    assert metrics["minmax_weight_upper"] + metrics["minmax_weight_lower"] == pytest.approx(1, abs=1e-5)
    assert metrics["single_upper_asr_all"] == metrics["single_lower_asr_all"] == 1
    assert metrics["hardest_weighs_most"] == 1


def test_fixed_weights_are_one_baseline_more() -> None:
    settings = MinMax(ball=Ball(norm="linf", eps=0.2), steps=3, alpha=20, beta=50, gamma=3, weights=(1.0, 0.0))
    found = outcomes(problem("ensemble"), settings, seed=0, starts_at_0=False, progress=lambda line: None)
    assert torch.equal(found["fixed"].weights, torch.tensor([[1.0, 0.0]] * 3))
    assert not torch.allclose(found["minmax"].weights, found["fixed"].weights)


def test_a_universal_problem_names_no_images() -> None:
    found = outcomes(problem("universal"), SETTINGS, seed=0, starts_at_0=True, progress=lambda line: None)
    metrics = figures(problem("universal"), found)
    assert set(metrics) == {
        *(
            f"{name}_{kind}"
            for name in ("minmax", "average", "held")
            for kind in ("asr_all", "asr_all_unrounded", "asr_mean")
        ),
        "minmax_largest_weight",
        "asr_gain",
    }


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    one = problem("ensemble")
    whole = attack(one, SETTINGS, seed=3, starts_at_0=False, progress=lambda done: None)
    monkeypatch.setattr("training.minmax.experiment._BATCH", 2)
    told: list[int] = []
    parts = attack(one, SETTINGS, seed=3, starts_at_0=False, progress=told.append)
    torch.testing.assert_close(parts.deltas, whole.deltas)
    torch.testing.assert_close(parts.weights, whole.weights)
    assert told == [2, 3]
    assert not torch.equal(
        attack(one, SETTINGS, seed=4, starts_at_0=False, progress=told.append).weights, whole.weights
    )


def test_groups_are_of_one_class_and_share_no_image() -> None:
    labels = np.array([0] * 11 + [1] * 7 + [2] * 3)
    groups = grouped(labels, 3, 5, seed=0)
    assert groups.shape == (3, 5)
    assert len(np.unique(groups)) == 15
    assert [set(labels[group]) for group in groups] == [{0}, {1}, {0}]
    for count in (0, 4):
        with pytest.raises(SetupError, match=rf"--images: expected 1 to 3 groups of 5 images of a class, got {count}"):
            grouped(labels, count, 5, seed=0)
    assert chosen_images("ensemble", labels, 9, 5, 0).shape == (9,)
    assert chosen_images("universal", labels, 10, 5, 0).shape == (2, 5)
    with pytest.raises(SetupError, match="--images: expected at most the 21 test images of the runs, got 22"):
        chosen_images("transforms", labels, 22, 5, 0)


def test_published_settings() -> None:
    row, steps = published("ensemble", "linf", 1)
    assert (row.eps, row.alpha, row.beta, row.gamma, steps) == (0.2, 4, 50, 3, 50)
    row, steps = published("transforms", "linf", 3)
    assert (row.eps, row.alpha, row.beta, row.gamma, steps) == (0.025, 6, 50, 3, 20)
    assert published("universal", "l0", 3)[0] == published("ensemble", "l0", 3)[0]
