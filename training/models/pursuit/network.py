"""Classifiers whose activations solve a sparse-coding problem."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.models.classifier import Classifier
from training.models.pursuit.dictionary import ConvDictionary, DenseDictionary, Dictionary
from training.models.pursuit.inference import Codes, Stack, feed_forward, layered, swept

__all__ = ["Inference", "PursuitNet", "conv_layers", "conv_skips", "dense_layers", "dense_skips"]

Inference = Literal["feed_forward", "layered", "deep"]

LAYERS_A_STAGE = 3
FALL = 0.5
"""Of the first thresholds from layer to layer. Equal ones silence the layers above: what they explain costs twice."""


class PursuitNet(Classifier):
    """A stack of dictionaries whose last activations are the embedding.

    All kinds of inference have the same parameters.
    """

    def __init__(
        self,
        layers: Sequence[Dictionary],
        *,
        classes: int,
        skips: Sequence[tuple[int, int]] = (),
        inference: Inference = "deep",
        sweeps: int = 5,
    ) -> None:
        """Takes the dictionaries from the image up; the last one's codes are vectors.

        Args:
            skips: see Stack.
            inference: see training.models.pursuit.inference.
            sweeps: of the deep problem, or proximal steps of each layer; 0 is the forward pass.
        """
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.skips = tuple(skips)
        self.inference = inference
        self.sweeps = sweeps
        self.head = nn.Linear(layers[-1].code_shape[0], classes)
        if not self.head.weight.is_meta:  # as it is where a recipe is checked alone
            self.settle()

    def extra_repr(self) -> str:
        """What its weights do not tell."""
        return f"inference={self.inference}, sweeps={self.sweeps}, skips={self.skips}"

    @property
    def stack(self) -> Stack:
        """Its sparse-coding problem."""
        return Stack(layers=self._layers, skips=self.skips)

    @property
    def _layers(self) -> tuple[Dictionary, ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, Dictionary))

    def codes(self, images: Tensor) -> Codes:
        """The activations of each layer, (N, *code_shape), from the lowest."""
        stack = self.stack
        if self.inference == "layered":
            return layered(stack, images, self.sweeps)
        codes = feed_forward(stack, images)
        for _ in range(self.sweeps if self.inference == "deep" else 0):
            codes = swept(stack, images, codes)
        return codes

    def embed(self, images: Tensor) -> Tensor:
        """The non-negative codes (N, D) of the last layer."""
        return self.codes(images)[-1]

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """See Classifier; the codes of each stage's last convolution, or of each dense layer as maps of 1 x 1."""
        codes = self.codes(images)
        maps = [code for code in codes if code.ndim == 4]
        return tuple(maps[LAYERS_A_STAGE - 1 :: LAYERS_A_STAGE] or [code[:, :, None, None] for code in codes])

    def settle(self) -> None:
        """See Classifier: operator norms anew."""
        for layer in self._layers:
            layer.refresh()

    @torch.no_grad()
    def epoch_figures(self, images: Tensor) -> Mapping[str, float]:
        """See Classifier: active_1, active_2, ..., the share of activations of each layer that are above 0.

        Raises:
            SetupError: none of the last layer is, so that every image gets the same answer.
        """
        shares = [float((code > 0).float().mean()) for code in self.codes(images)]
        if not shares[-1]:
            below = ", ".join(f"{share:.2g}" for share in shares)
            raise SetupError(
                f"model.threshold: expected active units in the last layer, got none on {len(images)} images (shares "
                f"of active units from the first layer up: {below}), so that all images get the same answer; lower "
                "model.threshold or train.learning_rate, or take fewer model.sweeps, and choose another --out"
            )
        return {f"active_{number}": share for number, share in enumerate(shares, start=1)}


def conv_layers(
    signal_shape: tuple[int, int, int], *, width: int, stages: int, codes: int, threshold: float
) -> list[Dictionary]:
    """Stages of three convolutional dictionaries, the first with stride 2, then a dense one of `codes`.

    Stage i has width * 2^i channels; thresholds begin at `threshold` and fall by half from layer to layer.
    """
    layers: list[Dictionary] = []
    shape = signal_shape
    for number in range(LAYERS_A_STAGE * stages):
        stage, place = divmod(number, LAYERS_A_STAGE)
        layer = ConvDictionary(shape, width * 2**stage, threshold * FALL**number, stride=1 if place else 2)
        _, height, across = shape
        shape = (width * 2**stage, -(-height // layer.stride), -(-across // layer.stride))
        layers.append(layer)
    return [*layers, DenseDictionary(shape, codes, threshold * FALL ** len(layers))]


def conv_skips(stages: int) -> list[tuple[int, int]]:
    """Around the second convolution of each stage."""
    return [(LAYERS_A_STAGE * stage, LAYERS_A_STAGE * stage + 2) for stage in range(stages)]


def dense_layers(
    signal_shape: tuple[int, int, int], *, width: int, depth: int, codes: int, threshold: float
) -> list[Dictionary]:
    """`depth` dense dictionaries of `width`, the last of `codes`, thresholds as in conv_layers."""
    layers: list[Dictionary] = []
    shape: tuple[int, ...] = signal_shape
    for number in range(depth):
        units = codes if number == depth - 1 else width
        layers.append(DenseDictionary(shape, units, threshold * FALL**number))
        shape = (units,)
    return layers


def dense_skips(depth: int) -> list[tuple[int, int]]:
    """Around every second layer behind the first; none where there are fewer than three."""
    return [(below, below + 2) for below in range(0, depth - 2, 2)]
