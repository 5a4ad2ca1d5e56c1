"""Spectra of the classifier's feature maps."""

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from service.detection.types import FlagReason
from service.errors import SetupError
from training.detectors.band_power import BandPower
from training.detectors.detector import CleanViews, Detector
from training.detectors.mahalanobis import MahalanobisDistance
from training.detectors.spectrum import radial_power
from training.models import Classifier

__all__ = ["FeatureSpectrum"]

SMALLEST = 4
"""Pixels of the shorter side: a smaller map has hardly a spectrum."""


class FeatureSpectrum(Detector):
    """Squared Mahalanobis distance of the radial log-power spectra of the stages' maps, averaged over channels.

    Written as a pass of its own up to the last map; runtimes that merge equal subgraphs, as onnxruntime does, compute
    the stages once.

    Source: Harder et al. 2021 (arXiv 2103.03000) read the spectra of feature maps with a classifier that was fitted on
        attacks; rings, their average over channels and the clean-only Gaussian are ours.
    """

    kind: ClassVar[str] = "feature_spectrum"
    meaning: ClassVar[str] = "the frequency spectra of the classifier's feature maps are less usual"
    reason: ClassVar[FlagReason] = FlagReason.INPUT_SPECTRUM

    def __init__(self, classifier: Classifier, powers: Sequence[BandPower], distance: MahalanobisDistance) -> None:
        """Takes the classifier, the spectra of its first maps, and the distance that was fitted on clean images."""
        super().__init__()
        # In a tuple, which torch does not look into: the weights belong to the graph that holds both.
        self._classifier = (classifier,)
        self.powers = nn.ModuleList(powers)
        self.distance = distance

    @classmethod
    def fit(cls, clean: CleanViews) -> Self:
        """One mean and one Ledoit-Wolf covariance over all classes.

        Raises:
            SetupError: even the first map is too small.
        """
        with torch.no_grad():
            maps = clean.classifier.feature_maps(clean.images[:1])
        powers = [radial_power(*one.shape[-2:]) for one in maps if min(one.shape[-2:]) >= SMALLEST]
        if not powers:
            height, width = maps[0].shape[-2:]
            raise SetupError(
                f"feature_spectrum: expected a feature map of {SMALLEST} x {SMALLEST} or more, got {height} x {width}; "
                "leave it out of export.detectors"
            )
        spectra = clean.described(lambda images: _spectra(clean.classifier, powers, images))
        return cls(clean.classifier, powers, MahalanobisDistance.of(spectra))

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        (classifier,) = self._classifier
        distances: Tensor = self.distance(_spectra(classifier, list(self.powers), images))
        return distances


def _spectra(classifier: Classifier, powers: Sequence[nn.Module], images: Tensor) -> Tensor:
    """(N, sum of rings): the mean over channels of the log power, map by map."""
    rows = []
    for power, maps in zip(powers, classifier.feature_maps(images), strict=False):  # maps shrink; the last are left out
        count, channels = maps.shape[:2]
        rows.append(power(maps).reshape(count, channels, -1).mean(dim=1))
    return torch.cat(rows, dim=1)
