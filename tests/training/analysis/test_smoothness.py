import numpy as np
import pytest
import torch
from torch import nn

from training.analysis.smoothness import kernels, roughness
from training.models.pursuit import ConvDictionary


def test_roughness_by_hand() -> None:
    flat, checks = np.ones((1, 3, 3, 1)), np.indices((3, 3)).sum(axis=0)[None, :, :, None] % 2 * 2.0 - 1
    ramp = np.array([[1.0, 2.0], [1.0, 2.0]])[None, :, :, None]
    assert roughness(flat) == 0
    assert roughness(checks) == 2
    assert roughness(ramp) == pytest.approx((0 + 0 + 1 + 1) / 4 / 1.5)
    assert roughness(7 * ramp) == pytest.approx(roughness(ramp))


def test_without_neighbours_or_weights_there_is_no_roughness() -> None:
    assert roughness(np.ones((4, 1, 1, 3))) is None
    assert roughness(np.zeros((4, 3, 3, 1))) is None


def test_the_first_convolution_is_looked_at() -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(nn.Conv2d(3, 20, 3)), nn.Conv2d(20, 8, 5))
    found = kernels(model, seed=0)
    assert found is not None
    assert (found.count, found.shown.shape) == (20, (16, 3, 3, 3))
    every = model[1][0].weight.detach().permute(0, 2, 3, 1).double()
    assert torch.equal(
        torch.from_numpy(found.shown[0]), every[int((every == found.shown[0]).flatten(1).all(1).nonzero())]
    )
    again = kernels(model, seed=0)
    assert again is not None
    assert np.array_equal(again.shown, found.shown)


def test_dictionaries_of_filters_are_convolutions() -> None:
    found = kernels(nn.Sequential(ConvDictionary((3, 8, 8), 5, 0.1)), seed=0)
    assert found is not None
    assert (found.count, found.shown.shape) == (5, (5, 3, 3, 3))


def test_a_network_without_convolutions_has_no_kernels() -> None:
    assert kernels(nn.Linear(4, 2), seed=0) is None
