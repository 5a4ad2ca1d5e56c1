from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from service.errors import SetupError
from training.models import MODELS, Classifier, build_model, unit_length
from training.models.small_cnn import SoftThreshold
from training.models.wide_resnet import WideResNet
from training.sections import ModelConfig

CONFIGS = {
    "small_cnn": ModelConfig(name="small_cnn", width=4, embedding_dim=12),
    "wide_resnet": ModelConfig(name="wide_resnet", width=1, depth=10),
    "resnet18": ModelConfig(name="resnet18", width=4),
    "pursuit": ModelConfig(name="pursuit", width=4, embedding_dim=12, sweeps=2),
    "pursuit_dense": ModelConfig(name="pursuit_dense", width=20, depth=3, embedding_dim=12, sweeps=2),
    "perceptron": ModelConfig(name="perceptron"),
    "all_cnn": ModelConfig(name="all_cnn"),
    "lenet": ModelConfig(name="lenet"),
    "two_convolutions": ModelConfig(name="two_convolutions"),
}
LEAST = {"lenet": 16}
"""Pixels a side, of a network that does not take images of any size."""
SIZES = {"8x8 grey": (1, 8, 8), "28x28 grey": (1, 28, 28), "32x32 colour": (3, 32, 32), "9x7 grey": (1, 9, 7)}


def side(name: str) -> int:
    return LEAST.get(name, 8)  # of the small images that most tests here take


def make(name: str, channels: int = 1, height: int = 0, width: int = 0) -> Classifier:
    torch.manual_seed(0)
    height, width = height or side(name), width or side(name)
    return build_model(CONFIGS[name], channels, height, width, classes=5).eval()


def test_every_model_has_its_row() -> None:
    assert list(CONFIGS) == list(MODELS)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_the_head_of_the_embedding(name: str, size: tuple[int, int, int]) -> None:
    if min(size[1:]) < LEAST.get(name, 0):
        with pytest.raises(SetupError, match=rf"{name}: expected images of \d+ x \d+ or more, got"):
            make(name, *size)
        return
    model = make(name, *size)
    images = torch.rand(3, *size)
    features = model.embed(images)
    assert features.shape == (3, model.head.in_features)
    assert torch.equal(model(images), model.head(features))
    assert torch.allclose(model.embedding(images).norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("small_cnn", [(4, 16, 16), (8, 8, 8)]),
        ("wide_resnet", [(16, 32, 32), (32, 16, 16), (64, 8, 8)]),
        ("resnet18", [(4, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4)]),
        ("pursuit", [(4, 16, 16), (8, 8, 8)]),
        ("pursuit_dense", [(20, 1, 1), (20, 1, 1), (12, 1, 1)]),
        ("perceptron", [(128, 1, 1), (128, 1, 1), (64, 1, 1)]),
        ("all_cnn", [(64, 32, 32), (128, 16, 16), (128, 8, 8)]),
        ("lenet", [(6, 14, 14), (16, 5, 5)]),
        ("two_convolutions", [(32, 16, 16), (64, 8, 8)]),
    ],
)
def test_feature_maps_are_those_of_the_stages(name: str, shapes: list[tuple[int, int, int]]) -> None:
    model, images = make(name, 3, 32, 32), torch.rand(2, 3, 32, 32)
    maps = model.feature_maps(images)
    assert [tuple(one.shape[1:]) for one in maps] == shapes
    last = maps[-1]
    if name == "pursuit":  # whose embedding depends on more than the last map
        return
    every_second = last[:, :, ::2, ::2] if name == "all_cnn" else last
    projects = hasattr(model, "projection")
    pooled = model.projection(last) if projects else every_second.mean(dim=(2, 3))  # type: ignore[operator]
    torch.testing.assert_close(pooled, model.embed(images))


@pytest.mark.parametrize("stride", [1, 2])
def test_small_cnn_takes_both_stem_strides(stride: int) -> None:
    config = ModelConfig(width=4, stem_stride=stride)  # type: ignore[arg-type]
    model = build_model(config, 1, 28, 28, classes=5)
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 5)
    assert model.head.in_features == 32


@pytest.mark.parametrize("name", CONFIGS)
def test_images_of_a_batch_do_not_touch_each_other(name: str) -> None:
    model = make(name)
    images = torch.rand(4, 1, side(name), side(name))
    together = model(images)
    assert torch.allclose(together, torch.cat([model(image[None]) for image in images]), atol=1e-5)


@pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning")  # torch.export itself uses what it deprecates
@pytest.mark.parametrize("name", CONFIGS)
def test_onnx_gives_the_same_logits_for_any_batch(name: str, tmp_path: Path) -> None:
    model = make(name)
    path = tmp_path / "model.onnx"
    batch = torch.export.Dim("N", min=1, max=4096)
    torch.onnx.export(
        model,
        (torch.rand(2, 1, side(name), side(name)),),
        path,
        dynamo=True,
        dynamic_shapes=({0: batch},),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 5):
        images = torch.rand(count, 1, side(name), side(name))
        (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        # Another order of the sums; float32 keeps about six digits.
        assert np.allclose(logits, model(images).detach().numpy(), atol=1e-4)


def test_the_head_of_all_cnn_is_its_last_convolution() -> None:
    model, images = make("all_cnn", 1, 28, 28), torch.rand(3, 1, 28, 28)
    convolution = torch.nn.Conv2d(128, 5, 1, stride=2)
    convolution.weight.data, convolution.bias.data = model.head.weight.data[:, :, None, None], model.head.bias.data  # type: ignore[union-attr]
    expected = convolution(model.feature_maps(images)[-1]).mean(dim=(2, 3))
    torch.testing.assert_close(model(images), expected)


def test_a_zero_embedding_stays_zero() -> None:
    assert torch.equal(unit_length(torch.zeros(1, 3)), torch.zeros(1, 3))
    assert torch.allclose(unit_length(torch.tensor([[3.0, 4.0]])), torch.tensor([[0.6, 0.8]]))


def test_wide_resnet_counts_its_layers() -> None:
    model = WideResNet(channels=3, classes=10, depth=34, factor=10)
    # Zagoruyko and Komodakis count 46.2 million for depth 34, factor 10, within rounding.
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == 46.2
    with pytest.raises(ValueError, match="6n"):
        WideResNet(channels=3, classes=10, depth=12)


def test_resnet18_has_the_known_number_of_parameters() -> None:
    config = ModelConfig(name="resnet18", width=64, embedding_dim=512)
    model = build_model(config, 3, 32, 32, classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962
    assert model.head.in_features == 512


def test_resnet18_begins_with_kaiming_weights_for_channels_last() -> None:
    model = build_model(ModelConfig(name="resnet18", width=32), 3, 32, 32, classes=10)
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) == 17 + 3  # 17 layers beside the head, 3 shortcuts that change the shape
    for convolution in convolutions:
        fan_out = convolution.out_channels * convolution.kernel_size[0] ** 2
        assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig(name="vgg"), r"model\.name: expected one of small_cnn, wide_resnet, .*, got 'vgg'"),
        (
            ModelConfig(name="lenet", width=8),
            r"model\.width: expected 16 for lenet, whose sizes are fixed, got 8; leave",
        ),
        (ModelConfig(name="perceptron", stem_stride=2), r"model\.stem_stride: expected 1 for perceptron, got 2"),
        (ModelConfig(name="wide_resnet", depth=12), r"model\.depth: expected 6n \+ 4"),
        (
            ModelConfig(name="wide_resnet", depth=10, width=1, embedding_dim=3),
            r"model\.embedding_dim: expected 0 or 64",
        ),
        (ModelConfig(name="wide_resnet", depth=10, stem_stride=2), r"model\.stem_stride: expected 1"),
        (ModelConfig(name="wide_resnet", depth=10, soft_threshold=10), r"model\.soft_threshold: expected 0"),
        (ModelConfig(name="resnet18", depth=18), r"model\.depth: expected 2 .*resnet18, got 18"),
        (ModelConfig(name="resnet18", width=8, embedding_dim=128), r"model\.embedding_dim: expected 0 or 64, got 128"),
        (ModelConfig(name="resnet18", stem_stride=2), r"model\.stem_stride: expected 1 for resnet18, got 2"),
        (ModelConfig(name="resnet18", soft_threshold=9), r"model\.soft_threshold: expected 0 for resnet18, got 9"),
        (ModelConfig(name="small_cnn", sweeps=3), r"model\.sweeps: expected 5 for small_cnn, got 3"),
        (ModelConfig(name="small_cnn", skips=False), r"model\.skips: expected true for small_cnn, got false"),
        (ModelConfig(name="resnet18", threshold=0.1), r"model\.threshold: expected 0.001 for resnet18, got 0.1"),
        (
            ModelConfig(name="wide_resnet", depth=10, inference="layered"),
            r'model\.inference: expected "deep" for wide_resnet, got "layered"',
        ),
        (ModelConfig(name="pursuit", stem_stride=2), r"model\.stem_stride: expected 1 for pursuit, got 2"),
        (
            ModelConfig(name="pursuit", inference="layered"),
            r'model\.skips: expected false with model\.inference = "layered"',
        ),
    ],
    ids=[
        "name",
        "fixed width",
        "fixed stride",
        "depth",
        "embedding",
        "stride",
        "threshold",
        "resnet18 depth",
        "resnet18 embedding",
        "resnet18 stride",
        "resnet18 threshold",
        "sweeps",
        "skips",
        "pursuit's threshold",
        "inference",
        "pursuit's stride",
        "layered skips",
    ],
)
def test_sizes_that_a_model_cannot_have_are_refused(config: ModelConfig, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        build_model(config, 1, 8, 8, classes=5)


def test_a_soft_threshold_squashes_pixels_and_keeps_their_gradients() -> None:
    images = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1)
    layer = SoftThreshold(10.0)
    assert layer(images).flatten().tolist() == pytest.approx([0.0066929, 0.5, 0.9933071], abs=1e-6)
    model = build_model(ModelConfig(width=4, soft_threshold=15.0), 1, 8, 8, classes=3).eval()
    black = torch.zeros(5, 1, 8, 8, requires_grad=True)
    model(black)[:, 0].sum().backward()
    assert black.grad is not None
    assert (black.grad != 0).all()
