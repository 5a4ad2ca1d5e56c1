import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks.adaptive import aim_at, clean_spread
from training.attacks.adaptive.target import Turned, held, views

LOGITS = torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0]])


def test_margins_fall_as_the_label_gets_wronger() -> None:
    assert aim_at(torch.tensor([0, 1]))(LOGITS).tolist() == [2.0, -2.0]


def test_class_0_is_a_target_like_any_other() -> None:
    labels = torch.tensor([1, 2])
    assert aim_at(labels, torch.tensor([0, 0]))(LOGITS).tolist() == [-2.0, -2.0]
    assert aim_at(labels, torch.tensor([2, 1]))(LOGITS).tolist() == [3.0, 2.0]


def test_the_true_class_is_no_target() -> None:
    with pytest.raises(SetupError, match="image 1: expected a wrong class as target, got its true class 2; leave"):
        aim_at(torch.tensor([0, 2]), torch.tensor([1, 2]))


def mean_pixel(images: Tensor) -> tuple[Tensor, Tensor]:
    return images.flatten(1)[:, :2], images.flatten(1).mean(dim=1)


@pytest.mark.parametrize(
    ("answer", "came"),
    [
        ((torch.zeros(2, 3), torch.zeros(2, 1)), r"\(2, 3\) and \(2, 1\)"),
        ((torch.zeros(2), torch.zeros(2)), r"\(2,\) and \(2,\)"),
        ((torch.zeros(1, 3), torch.zeros(2)), r"\(1, 3\) and \(2,\)"),
    ],
    ids=["column", "no classes", "too few"],
)
def test_answers_of_wrong_shape_are_refused(answer: tuple[Tensor, Tensor], came: str) -> None:
    with pytest.raises(SetupError, match=rf"expected logits \(2, L\) and suspicion \(2,\), got {came}"):
        views(lambda images: answer, torch.zeros(2, 1, 2, 2))


def test_turning_changes_only_the_sign_of_the_suspicion() -> None:
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    logits, suspicion = Turned(mean_pixel)(images)
    assert torch.equal(logits, mean_pixel(images)[0])
    assert torch.equal(suspicion, -mean_pixel(images)[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_turned_what_is_not_finite_is_the_lowest(value: float) -> None:
    _, suspicion = Turned(lambda images: (images.flatten(1), torch.full((2,), value)))(torch.zeros(2, 1, 2, 2))
    assert suspicion.tolist() == [-torch.finfo(torch.float32).max] * 2


def test_the_spread_is_the_interquartile_range() -> None:
    images = torch.rand(40, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    low, high = np.percentile(images.flatten(1).mean(dim=1).numpy(), [25, 75])
    assert clean_spread(mean_pixel, images) == pytest.approx(high - low, rel=1e-5)


@pytest.mark.parametrize("value", [0.5, float("inf"), float("nan")])
def test_a_suspicion_without_spread_is_refused(value: float) -> None:
    def flat(images: Tensor) -> tuple[Tensor, Tensor]:
        return images.flatten(1), torch.full((len(images),), value)

    with pytest.raises(SetupError, match="expected suspicions that differ and are finite, got an interquartile range"):
        clean_spread(flat, torch.zeros(4, 1, 2, 2))


def test_a_module_is_held_in_eval_mode_and_given_back() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return self.head(images.flatten(1)), images.flatten(1).mean(dim=1)

    module = Module().train()
    with held(module):
        assert not module.training
        assert not module.head.weight.requires_grad
    assert module.training
    assert module.head.weight.requires_grad
