"""Detectors of the Adversarial Robustness Toolbox (ART), trained and asked through the library itself."""

import logging
import types
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deploy.peers.peer import BATCH, Material, Peer, Scorer, TorchScorer, Unfit
from service.detection.types import Bytes8, Float64s
from training.attacks.rounding import from_8_bit
from training.models import Classifier
from training.models.small_cnn import SmallCnn

__all__ = ["BINARY_ACTIVATION", "BINARY_INPUT", "LEFT_OUT", "SUBSET_SCANNING"]

LEFT_OUT = {
    "ART BEYOND": "needs a self-supervised network of its own, trained on the same data, and never asks the classifier "
    "that it protects",
}
"""Detectors that were looked at and are not measured, and why."""

_EPOCHS = 20  # the library's default
_WIDTH = 16
_HIDDEN = 64


class _Binary(TorchScorer):
    """A network that the library has trained; its score by the library, its gradient by torch."""

    def __init__(self, detector: Any, net: nn.Module, see: nn.Module) -> None:
        """Takes the library's detector, the network in it, and what leads from an image to that network's input."""
        super().__init__()
        self.detector = detector
        self.net = net
        self.see = see

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(self.see(images))
        return logits[:, 1] - logits[:, 0]  # type: ignore[no-any-return]

    def score(self, images: Bytes8) -> Float64s:
        report, _ = self.detector.detect(from_8_bit(images).contiguous().numpy(), batch_size=BATCH)
        logits = np.asarray(report["predictions"], dtype=np.float64)
        return np.asarray(logits[:, 1] - logits[:, 0])


class _Subset:
    """The library's scan; its p-values are steps, so there is no gradient."""

    def __init__(self, detector: Any) -> None:
        self._detector = detector

    def score(self, images: Bytes8) -> Float64s:
        floats = from_8_bit(images).contiguous().numpy()
        return np.concatenate([self._scores(floats[i : i + BATCH]) for i in range(0, len(floats), BATCH)])

    def _scores(self, images: np.ndarray) -> Float64s:
        try:
            report, _ = self._detector.detect(images, batch_size=BATCH)
        except ValueError:  # an image without any p-value up to 0.5 stops the library's scan
            if len(images) == 1:
                return np.zeros(1)
            return np.concatenate([self._scores(images[i : i + 1]) for i in range(len(images))])
        return np.asarray(report["scores"], dtype=np.float64)


class _Embed(nn.Module):
    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.embed(images)


def _binary_input(material: Material) -> TorchScorer:
    library = _library()
    channels, height, width = material.calm.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(material.seed)
        net = SmallCnn(channels=channels, height=height, width=width, classes=2, first_channels=_WIDTH)
        detector = library.BinaryInputDetector(_trainable(net, (channels, height, width)))
        _train(detector, material)
    return _Binary(detector, net.eval(), nn.Identity())


def _binary_activation(material: Material) -> TorchScorer:
    library = _library()
    see = _Embed(material.model)
    inputs = material.model.head.in_features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(material.seed)
        net = nn.Sequential(nn.Linear(inputs, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 2))
        detector = library.BinaryActivationDetector(_watched(see, material), _trainable(net, (inputs,)), "0")
        _train(detector, material)
    return _Binary(detector, net.eval(), see)


def _subset_scanning(material: Material) -> Scorer:
    library = _library()
    watched = _watched(_Embed(material.model), material)
    return _Subset(library.SubsetScanningDetector(watched, _floats(material.fit.images), "0", verbose=False))


def _train(detector: Any, material: Material) -> None:
    """All clean images against all attacked ones, whether or not the attack succeeded, as the library's examples do."""
    images = torch.cat([material.calm, material.attacked])
    labels = np.repeat([0, 1], len(material.calm))
    detector.fit(_floats(images), labels, batch_size=BATCH, nb_epochs=_EPOCHS)


def _trainable(net: nn.Module, shape: tuple[int, ...]) -> Any:
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    return _wrapped(net, shape, 2, optimizer=optimiser)


def _watched(see: _Embed, material: Material) -> Any:
    """The classifier as the library can look into it: features as layer "0", then the head."""
    shape = tuple(material.calm.shape[1:])
    return _wrapped(nn.Sequential(see, material.model.head), shape, material.fit.classes)


def _wrapped(net: nn.Module, shape: tuple[int, ...], classes: int, **settings: Any) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(net, nn.CrossEntropyLoss(), shape, classes, device_type="cpu", **settings)


def _floats(images: Tensor) -> np.ndarray:
    return images.contiguous().numpy()


def _library() -> types.ModuleType:
    """ART's detectors of evasion.

    Raises:
        Unfit: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports
            from art.defences.detector import evasion
    except ImportError as error:
        raise Unfit(f"not installed: pip install adversarial-robustness-toolbox ({error})") from error
    logging.getLogger("art").setLevel(logging.ERROR)
    return evasion  # type: ignore[no-any-return]


_SOURCE = "adversarial-robustness-toolbox"

BINARY_INPUT = Peer(
    name="art_binary_input",
    title="ART BinaryInputDetector",
    source=f"{_SOURCE}; a small convolutional network on the image, 20 epochs",
    fit_data="clean and PGD",
    fit=_binary_input,
)
BINARY_ACTIVATION = Peer(
    name="art_binary_activation",
    title="ART BinaryActivationDetector",
    source=f"{_SOURCE}; two linear layers on the classifier's features, 20 epochs",
    fit_data="clean and PGD",
    fit=_binary_activation,
)
SUBSET_SCANNING = Peer(
    name="art_subset_scanning",
    title="ART SubsetScanningDetector",
    source=f"{_SOURCE}; Berk-Jones scan over the classifier's features, each image alone",
    fit_data="clean",
    fit=_subset_scanning,
)
