"""Mahalanobis distances on several layers (Lee et al. 2018), with and without attacks to learn from."""

from typing import Self

import torch
from torch import Tensor, nn

from deploy.peers.layers import Layers
from deploy.peers.logistic import Logistic
from deploy.peers.peer import BATCH, Material, Peer, TorchScorer, rows_of
from training.detectors.classes import class_means
from training.detectors.mahalanobis import shrunk_whitening
from training.models import Classifier

__all__ = ["MAHALANOBIS", "MAHALANOBIS_SUM", "LayerGaussians"]


class LayerGaussians(nn.Module):
    """On each layer, squared Mahalanobis distance to the nearest class mean; maps are averaged over their places.

    Source: Lee et al. 2018 (arXiv 1807.03888), equation 2. Their covariance is the empirical one; ours is shrunk
        (Ledoit and Wolf), since a class may have fewer images than a layer has channels.
    """

    def __init__(self, layers: Layers, means: list[Tensor], whitenings: list[Tensor]) -> None:
        """Takes, of each layer, (L, c) class means and the (c, c) whitening of the covariance that all share."""
        super().__init__()
        self.layers = layers
        self.means = nn.ParameterList([nn.Parameter(mean.float(), requires_grad=False) for mean in means])
        self.whitenings = nn.ParameterList([nn.Parameter(one.float(), requires_grad=False) for one in whitenings])

    @classmethod
    def fit(cls, model: Classifier, images: Tensor, labels: Tensor, classes: int) -> Self:
        """Fitted on (n, C, H, W) clean images and their (n,) true classes.

        Raises:
            SetupError: a class has no image.
        """
        layers = Layers(model)
        with torch.no_grad():
            passes = [_averaged(layers(batch)) for batch in torch.split(images, BATCH)]
        rows = [torch.cat(layer).double() for layer in zip(*passes, strict=True)]
        means = [class_means(row, labels, classes) for row in rows]
        return cls(layers, means, [shrunk_whitening(row - mean[labels]) for row, mean in zip(rows, means, strict=True)])

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images in [0, 1] to (N, K) distances, K layers."""
        layers = zip(_averaged(self.layers(images)), self.means, self.whitenings, strict=True)
        return torch.stack([_nearest(rows, means, whitening) for rows, means, whitening in layers], dim=1)


class _Weighted(TorchScorer):
    def __init__(self, distances: LayerGaussians, weights: Logistic) -> None:
        super().__init__()
        self.distances = distances
        self.weights = weights

    def forward(self, images: Tensor) -> Tensor:
        odds: Tensor = self.weights(self.distances(images))
        return odds


class _Summed(TorchScorer):
    mean: Tensor
    scale: Tensor

    def __init__(self, distances: LayerGaussians, clean: Tensor) -> None:
        super().__init__()
        self.distances = distances
        self.register_buffer("mean", clean.mean(dim=0))
        self.register_buffer("scale", clean.std(dim=0).clamp_min(1e-12))

    def forward(self, images: Tensor) -> Tensor:
        total: Tensor = ((self.distances(images) - self.mean) / self.scale).sum(dim=1)
        return total


def _fitted(material: Material) -> LayerGaussians:
    clean = material.fit
    return LayerGaussians.fit(material.model, clean.images, clean.labels, clean.classes)


def _weighted(material: Material) -> TorchScorer:
    attacked = material.attacks_that_fool()
    distances = _fitted(material)
    clean = torch.cat([material.calm, material.noisy])
    return _Weighted(distances, Logistic.of(rows_of(distances, clean), rows_of(distances, attacked)))


def _summed(material: Material) -> TorchScorer:
    distances = _fitted(material)
    return _Summed(distances, rows_of(distances, material.calm))


def _averaged(layers: list[Tensor]) -> list[Tensor]:
    return [maps.flatten(2).mean(dim=2) if maps.ndim == 4 else maps for maps in layers]


def _nearest(rows: Tensor, means: Tensor, whitening: Tensor) -> Tensor:
    """(N,) of rows (N, c), class means (L, c) and whitening (c, c)."""
    away = rows @ whitening, means @ whitening
    return (away[0][:, None] - away[1][None]).square().sum(dim=2).amin(dim=1)


MAHALANOBIS = Peer(
    name="mahalanobis",
    title="Mahalanobis, layers weighted on attacks",
    source="Lee et al. 2018 (arXiv 1807.03888) without their input preprocessing, whose size they choose by attack",
    fit_data="clean and PGD",
    fit=_weighted,
)
MAHALANOBIS_SUM = Peer(
    name="mahalanobis_sum",
    title="Mahalanobis, sum over layers (our fit)",
    source="the same distances, each in units of its spread on clean images; the sum is ours and needs no attack",
    fit_data="clean",
    fit=_summed,
)
