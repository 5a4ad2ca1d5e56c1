"""Spectral alignment (SAR): the DFT of the logits should stay as it is when the image is attacked.

    term      = lambda * Dis( F(f(x)), F(f(x')) )
    Dis(U, V) = sum |Re U - Re V| + |Im U - Im V|           F = unnormalised two-sided DFT

* per_sample: the DFT runs over the classes of each image; summed over classes, mean over images. This form does not
  depend on the batch size; lambda is about 0.6 / classes.
* batch2d: the DFT runs over batch and classes at once, mean over all 2 N classes real numbers; lambda 0.1. The authors'
  code computes this one.

With squared differences the term would be logit pairing (Parseval); only the absolute values make it another.

Source: the frequency regularisation of Huang et al. (arXiv 2212.12732) and its successor SAR (arXiv 2306.14262), from
the first one's equations: we take the two terms to be the same. We differ in the default form, and in passing clean and
attacked images together (see LossTerm).
"""

from typing import Literal

import torch
from torch import Tensor

__all__ = ["spectral_distance"]


def spectral_distance(clean: Tensor, attacked: Tensor, form: Literal["per_sample", "batch2d"]) -> Tensor:
    """Dis of the spectra of two sets of logits (N, classes): a scalar."""
    difference = clean - attacked  # the DFT is linear: one is enough
    if form == "batch2d":
        return torch.view_as_real(torch.fft.fft2(difference)).abs().mean()
    return torch.view_as_real(torch.fft.fft(difference, dim=1)).abs().sum(dim=(1, 2)).mean()
