"""Deep pursuit: the sparse-coding problem by figures worked out beforehand, and the networks that solve it."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from service.errors import SetupError
from training.evaluation.attack_cache import network_digest
from training.models import build_model
from training.models.pursuit import (
    ConvDictionary,
    DenseDictionary,
    Dictionary,
    PursuitNet,
    Stack,
    conv_layers,
    conv_skips,
    dense_layers,
    dense_skips,
    feed_forward,
    layered,
    objective,
    swept,
)
from training.sections import ModelConfig

FIXTURE = {
    0.05: ([0.588335, 0.545357, 0.471698, 0.415833, 0.413600], [32, 5, 0, 0, 0]),
    0.001: ([0.981632, 2.048900, 0.484679, 0.319873, 0.301217], [47, 41, 29, 18, 18]),
}
"""By threshold: the sum after the forward pass, layered pursuit, 1, 5 and 200 sweeps; then active units a layer."""


def fixture(threshold: float) -> tuple[Stack, Tensor]:
    random = np.random.default_rng(0)
    sizes = [64, 96, 80, 64, 48, 32]
    layers: list[Dictionary] = []
    for below, above in itertools.pairwise(sizes):
        columns = random.normal(size=(below, above))
        columns /= np.linalg.norm(columns, axis=0)
        layer = DenseDictionary((below,), above, threshold).double()
        layer.weight.data = torch.from_numpy(columns.T.copy())
        layer.squared_norm.fill_(np.linalg.norm(columns, 2) ** 2)
        layers.append(layer.requires_grad_(False))
    signal = random.normal(size=64)
    return Stack(layers=layers), torch.from_numpy(signal / np.linalg.norm(signal))[None]


def conv_stack(*, skips: bool) -> tuple[Stack, Tensor]:
    """Random dictionaries over maps of odd sizes, in float64, and images."""
    torch.manual_seed(3)
    layers = [layer.double() for layer in conv_layers((2, 9, 11), width=3, stages=2, codes=7, threshold=0.01)]
    for layer in layers:
        layer.requires_grad_(False).refresh()
    return Stack(layers=layers, skips=conv_skips(2) if skips else ()), torch.rand(4, 2, 9, 11, dtype=torch.float64)


def sums(stack: Stack, images: Tensor, sweeps: int) -> list[Tensor]:
    """After each sweep, (N,), the forward pass first."""
    codes = feed_forward(stack, images)
    found = [objective(stack, images, codes)]
    for _ in range(sweeps):
        codes = swept(stack, images, codes)
        found.append(objective(stack, images, codes))
    return found


@pytest.mark.parametrize("threshold", FIXTURE)
def test_the_fixture_has_its_figures(threshold: float) -> None:
    expected, active = FIXTURE[threshold]
    stack, signal = fixture(threshold)
    after = sums(stack, signal, 200)
    in_turn = objective(stack, signal, layered(stack, signal, 200, from_zero=True))
    found = [float(one) for one in (after[0], in_turn, after[1], after[5], after[200])]
    assert found == pytest.approx(expected, abs=1e-6)
    codes = feed_forward(stack, signal)
    for _ in range(200):
        codes = swept(stack, signal, codes)
    assert [int((code > 0).sum()) for code in codes] == active


def problems() -> dict[str, tuple[Stack, Tensor]]:
    return {
        "dense": fixture(0.001),
        "convolutional": conv_stack(skips=False),
        "with skips": conv_stack(skips=True),
    }


@pytest.mark.parametrize("name", problems())
def test_no_sweep_raises_the_sum_of_any_image(name: str) -> None:
    stack, images = problems()[name]
    after = sums(stack, images, 60)
    for before, now in itertools.pairwise(after):
        assert (now <= before * (1 + 1e-12)).all()
    assert (after[-1] < after[0]).all()


@pytest.mark.parametrize("name", problems())
def test_converged_it_is_no_higher_than_layer_after_layer(name: str) -> None:
    stack, images = problems()[name]
    in_turn = objective(stack, images, layered(stack, images, 1000))
    after = sums(stack, images, 1000)
    assert (after[-1] <= in_turn).all()
    assert (after[-2] - after[-1] < 1e-4 * after[-1]).all()  # as good as converged


def test_steps_that_are_too_long_do_raise_it() -> None:
    stack, images = conv_stack(skips=True)
    for layer in stack.layers:
        layer.squared_norm.mul_(0.2)
    after = sums(stack, images, 20)
    assert any((now > before).any() for before, now in itertools.pairwise(after))


def test_layered_pursuit_settles_each_layer_where_no_code_wants_to_move() -> None:
    stack, signal = fixture(0.05)
    codes = layered(stack, signal, 3000)
    for number, (layer, code) in enumerate(zip(stack.layers, codes, strict=True)):
        below = stack.signal(signal, codes, number)
        slope = layer.threshold - layer.analyse(below - layer.synthesise(code))
        assert (slope * (code > 0)).abs().max() < 1e-8
        assert slope[code == 0].min() > -1e-8


DICTIONARIES = {
    "dense": lambda: DenseDictionary((5,), 8, 0.0),
    "dense over maps": lambda: DenseDictionary((2, 3, 4), 7, 0.0),
    "convolution": lambda: ConvDictionary((2, 5, 6), 3, 0.0),
    "stride 2, even": lambda: ConvDictionary((2, 6, 8), 3, 0.0, stride=2),
    "stride 2, odd": lambda: ConvDictionary((1, 7, 9), 3, 0.0, stride=2),
    "stride 2, mixed": lambda: ConvDictionary((3, 7, 8), 2, 0.0, stride=2),
}


@pytest.mark.parametrize("name", DICTIONARIES)
def test_the_two_maps_are_adjoint(name: str) -> None:
    torch.manual_seed(0)
    layer = DICTIONARIES[name]().double()
    codes = torch.randn(6, *layer.code_shape, dtype=torch.float64)
    signals = torch.randn(6, *layer.signal_shape, dtype=torch.float64)
    left = (layer.synthesise(codes) * signals).flatten(1).sum(dim=1)
    right = (codes * layer.analyse(signals)).flatten(1).sum(dim=1)
    torch.testing.assert_close(left, right, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", DICTIONARIES)
def test_the_norm_is_at_most_two_percent_above_the_true_one_and_never_below(name: str) -> None:
    torch.manual_seed(1)
    layer = DICTIONARIES[name]().double()
    layer.refresh()
    units = torch.eye(int(np.prod(layer.code_shape)), dtype=torch.float64).view(-1, *layer.code_shape)
    true = float(torch.linalg.matrix_norm(layer.synthesise(units).detach().flatten(1), 2)) ** 2
    assert true <= float(layer.squared_norm) <= 1.02 * true * (1 + 1e-9)


def test_a_dictionary_of_zeros_gives_finite_steps_and_can_come_back() -> None:
    layer = DenseDictionary((4,), 6, 0.1)
    kept = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.zero_()
    layer.refresh()
    assert torch.isfinite(layered(Stack(layers=[layer]), torch.rand(2, 4), 3)[0]).all()
    layer.refresh()  # the power iteration has no direction left
    with torch.no_grad():
        layer.weight.copy_(kept)
    layer.refresh()
    true = float(torch.linalg.matrix_norm(kept, 2)) ** 2
    assert float(layer.squared_norm) == pytest.approx(1.02 * true, rel=0.01)


def test_a_threshold_stays_at_zero_or_above_and_can_leave_zero() -> None:
    layer = DenseDictionary((4,), 3, 0.1)
    with torch.no_grad():
        layer.raw_threshold.copy_(torch.tensor([-0.5, 0.0, 0.2]))
    assert layer.threshold.tolist() == pytest.approx([0.0, 0.0, 0.2])
    layer.threshold.sum().backward()
    assert layer.raw_threshold.grad is not None
    assert layer.raw_threshold.grad.tolist() == [1, 1, 1]
    layer.refresh()
    assert layer.raw_threshold.tolist() == pytest.approx([0.0, 0.0, 0.2])


def made(name: str = "pursuit", **keys: object) -> PursuitNet:
    torch.manual_seed(0)
    sizes = {"width": 4, "depth": 2} if name == "pursuit" else {"width": 20, "depth": 4}
    model = build_model(ModelConfig(name=name, **{**sizes, **keys}), 1, 8, 8, classes=5)  # type: ignore[arg-type]
    assert isinstance(model, PursuitNet)
    return model.eval()


@pytest.mark.parametrize("name", ["pursuit", "pursuit_dense"])
def test_no_sweep_at_all_is_the_feed_forward_net(name: str) -> None:
    images = torch.rand(3, 1, 8, 8)
    for skips in (True, False):
        plain = made(name, inference="feed_forward", skips=skips)(images)
        assert torch.equal(made(name, sweeps=0, skips=skips)(images), plain)
        assert not torch.equal(made(name, sweeps=1, skips=skips)(images), plain)
    assert torch.equal(made(name, inference="layered", sweeps=0, skips=False)(images), plain)
    assert not torch.equal(made(name, inference="layered", sweeps=2, skips=False)(images), plain)
    assert not torch.equal(made(name)(images), made(name, skips=False)(images))


def test_the_forward_pass_is_that_of_relu_layers_with_biases() -> None:
    model, images = made("pursuit_dense", inference="feed_forward", skips=False, threshold=0.3), torch.rand(3, 1, 8, 8)
    features = images.flatten(1)
    for number, layer in enumerate(model.stack.layers):
        features = torch.relu(features @ layer.weight.t() - 0.3 * 0.5**number)
    torch.testing.assert_close(model.embed(images), features)


@pytest.mark.parametrize("name", ["pursuit", "pursuit_dense"])
def test_every_kind_of_inference_has_the_same_parameters(name: str) -> None:
    models = [
        made(name),
        made(name, sweeps=0),
        made(name, skips=False),
        made(name, inference="layered", skips=False),
        made(name, inference="feed_forward"),
    ]
    first, *others = ({key: value.shape for key, value in model.state_dict().items()} for model in models)
    assert all(other == first for other in others)


def test_networks_that_infer_otherwise_are_told_apart_where_their_weights_are_equal() -> None:
    models = [made(), made(sweeps=0), made(skips=False), made(inference="layered", skips=False)]
    assert len({network_digest(model) for model in models}) == 4
    assert network_digest(made()) == network_digest(made())


def test_skips_join_codes_of_one_shape() -> None:
    stack = made().stack
    assert stack.skips == ((0, 2), (3, 5))
    assert dense_skips(5) == [(0, 2), (2, 4)]
    assert dense_skips(2) == []
    layers = dense_layers((1, 4, 4), width=6, depth=4, codes=6, threshold=0.1)
    assert [layer.code_shape for layer in layers] == [(6,)] * 4
    for below, above in stack.skips:
        assert stack.layers[below].code_shape == stack.layers[above].signal_shape
    # A code that skips a layer is part of one more residual, and its step is shorter.
    assert float(1 / stack.step(0) - stack.layers[0].squared_norm) == pytest.approx(2, abs=1e-4)
    assert float(1 / stack.step(1) - stack.layers[1].squared_norm) == pytest.approx(1, abs=1e-4)
    assert float(1 / stack.step(6) - stack.layers[6].squared_norm) == pytest.approx(0, abs=1e-4)


def test_norms_are_constants_of_the_backward_pass_and_part_of_the_state() -> None:
    model = made()
    model(torch.rand(2, 1, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    layer = model.stack.layers[0]
    assert not layer.squared_norm.requires_grad
    before = float(layer.squared_norm)
    with torch.no_grad():
        layer.weight.mul_(2)
    model(torch.rand(2, 1, 8, 8))
    assert float(layer.squared_norm) == before
    model.settle()
    assert float(layer.squared_norm) == pytest.approx(4 * before, rel=0.02)
    other = made()
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(other.stack.layers[0].squared_norm, layer.squared_norm)


def test_shares_of_active_units_are_told_and_a_dead_top_is_an_error() -> None:
    model, images = made(), torch.rand(6, 1, 8, 8)
    shares = model.epoch_figures(images)
    assert list(shares) == [f"active_{number}" for number in range(1, 8)]
    assert shares["active_7"] == float((model.embed(images) > 0).float().mean())
    with pytest.raises(
        SetupError,
        match=r"model\.threshold: expected active units in the last layer, got none on 6 images .*lower model\.thresh",
    ):
        made(threshold=1e3).epoch_figures(images)
