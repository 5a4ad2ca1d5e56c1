"""Detectors of pytorch-ood, where it is installed: it needs torchvision, which nothing here does."""

import importlib
from typing import Any

from torch import Tensor, nn

from deploy.peers.peer import Material, Peer, TorchScorer, Unfit

__all__ = ["OOD_ENERGY", "OOD_SOFTMAX"]


class _Predicted(TorchScorer):
    def __init__(self, detector: Any, model: nn.Module) -> None:
        super().__init__()
        self.detector = detector
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.detector.predict(images)  # type: ignore[no-any-return]


def _peer(name: str, title: str, kind: str) -> Peer:
    def fit(material: Material) -> TorchScorer:
        return _Predicted(getattr(_library(), kind)(material.model), material.model)

    return Peer(name=name, title=title, source=f"pytorch-ood, {kind}", fit_data="nothing", fit=fit)


def _library() -> Any:
    """Its detectors.

    Raises:
        Unfit: it is not installed.
    """
    try:
        return importlib.import_module("pytorch_ood.detector")
    except ImportError as error:
        raise Unfit(f"not installed: pip install pytorch-ood ({error})") from error


OOD_ENERGY = _peer("ood_energy", "pytorch-ood EnergyBased", "EnergyBased")
OOD_SOFTMAX = _peer("ood_softmax", "pytorch-ood MaxSoftmax", "MaxSoftmax")
