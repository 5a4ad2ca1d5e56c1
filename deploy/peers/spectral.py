"""SpectralDefense on the input (Harder et al. 2021)."""

import torch
from torch import Tensor

from deploy.peers.logistic import Logistic
from deploy.peers.peer import Material, Peer, TorchScorer

__all__ = ["SPECTRAL", "magnitudes"]


class _Spectral(TorchScorer):
    def __init__(self, weights: Logistic) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, images: Tensor) -> Tensor:
        odds: Tensor = self.weights(magnitudes(images))
        return odds


def magnitudes(images: Tensor) -> Tensor:
    """(N, C, H, W) images to (N, C H W) magnitudes of each channel's discrete Fourier transform."""
    spectrum: Tensor = torch.fft.fft2(images)
    # abs has no gradient at 0, where constant channels have most of their spectrum.
    sizes: Tensor = (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()
    return sizes.flatten(1)


def _fit(material: Material) -> TorchScorer:
    attacked = material.attacks_that_fool()
    return _Spectral(Logistic.of(magnitudes(material.calm), magnitudes(attacked)))


SPECTRAL = Peer(
    name="spectral",
    title="SpectralDefense, InputMFS",
    source="Harder et al. 2021 (arXiv 2103.03000), magnitude spectrum of the input with logistic regression",
    fit_data="clean and PGD",
    fit=_fit,
)
