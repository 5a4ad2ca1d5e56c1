"""Classifiers. A new one: one file, one line in MODELS, one row in its test table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch

from service.errors import SetupError
from training.checks import one_of
from training.models.classifier import Classifier, unit_length
from training.models.ensemble import AllCnn, LeNet, Perceptron, TwoConvolutions
from training.models.pursuit import (
    Dictionary,
    PursuitNet,
    conv_layers,
    conv_skips,
    dense_layers,
    dense_skips,
)
from training.models.resnet import ResNet18
from training.models.small_cnn import SmallCnn
from training.models.wide_resnet import WideResNet
from training.sections import ModelConfig
from training.spelling import toml_value

__all__ = ["MODELS", "Classifier", "ImageShape", "build_model", "check_model", "unit_length"]


@dataclass(frozen=True, kw_only=True)
class ImageShape:
    """What a model sees and how many classes it tells apart."""

    channels: int
    height: int
    width: int
    classes: int


def _small_cnn(config: ModelConfig, shape: ImageShape) -> Classifier:
    return SmallCnn(
        channels=shape.channels,
        height=shape.height,
        width=shape.width,
        classes=shape.classes,
        first_channels=config.width,
        stages=config.depth,
        embedding_dim=config.embedding_dim or 8 * config.width,
        stem_stride=config.stem_stride,
        soft_threshold=config.soft_threshold,
    )


def _wide_resnet(config: ModelConfig, shape: ImageShape) -> Classifier:
    if config.depth < 10 or (config.depth - 4) % 6:
        raise SetupError(f"model.depth: expected 6n + 4 for wide_resnet (10, 16, 28, 34), got {config.depth}")
    if config.embedding_dim not in (0, 64 * config.width):
        own = 64 * config.width
        raise SetupError(f"model.embedding_dim: expected 0 or {own}, got {config.embedding_dim}")
    return WideResNet(channels=shape.channels, classes=shape.classes, depth=config.depth, factor=config.width)


def _resnet18(config: ModelConfig, shape: ImageShape) -> Classifier:
    if config.depth != 2:
        raise SetupError(f"model.depth: expected 2 (blocks a stage) for resnet18, got {config.depth}; leave it out")
    if config.embedding_dim not in (0, 8 * config.width):
        raise SetupError(f"model.embedding_dim: expected 0 or {8 * config.width}, got {config.embedding_dim}")
    return ResNet18(channels=shape.channels, classes=shape.classes, width=config.width)


def _pursuit(config: ModelConfig, shape: ImageShape) -> Classifier:
    layers = conv_layers(
        (shape.channels, shape.height, shape.width),
        width=config.width,
        stages=config.depth,
        codes=config.embedding_dim or 8 * config.width,
        threshold=config.threshold,
    )
    return _pursuing(layers, conv_skips(config.depth), config, shape)


def _pursuit_dense(config: ModelConfig, shape: ImageShape) -> Classifier:
    layers = dense_layers(
        (shape.channels, shape.height, shape.width),
        width=config.width,
        depth=config.depth,
        codes=config.embedding_dim or config.width,
        threshold=config.threshold,
    )
    return _pursuing(layers, dense_skips(config.depth), config, shape)


def _pursuing(
    layers: Sequence[Dictionary], skips: Sequence[tuple[int, int]], config: ModelConfig, shape: ImageShape
) -> Classifier:
    if config.inference == "layered" and config.skips:
        raise SetupError(
            'model.skips: expected false with model.inference = "layered", which solves each layer by itself, got true'
        )
    return PursuitNet(
        layers,
        classes=shape.classes,
        skips=skips if config.skips else (),
        inference=config.inference,
        sweeps=config.sweeps,
    )


_PURSUIT_KEYS = ("inference", "sweeps", "skips", "threshold")
OWN_KEYS: Mapping[str, Sequence[str]] = {
    "small_cnn": ("stem_stride", "soft_threshold"),
    "pursuit": _PURSUIT_KEYS,
    "pursuit_dense": _PURSUIT_KEYS,
}
"""Keys of [model] that have an effect on some models only."""


def _refuse_others_keys(config: ModelConfig) -> None:
    defaults = {field.name: field.default for field in fields(ModelConfig)}
    for key in dict.fromkeys(key for keys in OWN_KEYS.values() for key in keys):
        wanted, got = defaults[key], getattr(config, key)
        if got != wanted and key not in OWN_KEYS.get(config.name, ()):
            raise SetupError(f"model.{key}: expected {_told(wanted)} for {config.name}, got {_told(got)}")


def _told(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else toml_value(value)


def _perceptron(config: ModelConfig, shape: ImageShape) -> Classifier:
    _refuse_sizes(config)
    return Perceptron(channels=shape.channels, height=shape.height, width=shape.width, classes=shape.classes)


def _all_cnn(config: ModelConfig, shape: ImageShape) -> Classifier:
    _refuse_sizes(config)
    return AllCnn(channels=shape.channels, classes=shape.classes)


def _lenet(config: ModelConfig, shape: ImageShape) -> Classifier:
    _refuse_sizes(config)
    return LeNet(channels=shape.channels, height=shape.height, width=shape.width, classes=shape.classes)


def _two_convolutions(config: ModelConfig, shape: ImageShape) -> Classifier:
    _refuse_sizes(config)
    return TwoConvolutions(channels=shape.channels, height=shape.height, width=shape.width, classes=shape.classes)


def _refuse_sizes(config: ModelConfig) -> None:
    """Of a network whose sizes are the paper's; the keys may only be left as they are."""
    for key in ("width", "depth", "embedding_dim"):
        wanted = getattr(ModelConfig, key)
        if getattr(config, key) != wanted:
            raise SetupError(
                f"model.{key}: expected {wanted} for {config.name}, whose sizes are fixed, got {getattr(config, key)}; "
                "leave it out"
            )


MODELS: Mapping[str, Callable[[ModelConfig, ImageShape], Classifier]] = {
    "small_cnn": _small_cnn,
    "wide_resnet": _wide_resnet,
    "resnet18": _resnet18,
    "pursuit": _pursuit,
    "pursuit_dense": _pursuit_dense,
    "perceptron": _perceptron,
    "all_cnn": _all_cnn,
    "lenet": _lenet,
    "two_convolutions": _two_convolutions,
}


def build_model(config: ModelConfig, channels: int, height: int, width: int, classes: int) -> Classifier:
    """A new classifier in train mode; its weights come from torch's global generator.

    Raises:
        SetupError: an unknown name, or sizes that the model cannot have.
    """
    one_of(MODELS, "model.name", config.name)
    _refuse_others_keys(config)
    shape = ImageShape(channels=channels, height=height, width=width, classes=classes)
    return MODELS[config.name](config, shape).prepared()


def check_model(config: ModelConfig) -> None:
    """Refuses what build_model would refuse for images of any size, without making weights.

    Raises:
        SetupError: as for build_model.
    """
    with torch.device("meta"):
        build_model(config, channels=3, height=512, width=512, classes=2)
