"""Logit pairing: attacked images should get the logits of their clean ones.

    l1:  weight * mean over images of sum |z(x) - z(x')|
    l2:  weight * mean over images of sum (z(x) - z(x'))^2          adversarial logit pairing (ALP)

The baselines of spectral alignment. For independent normal differences of root mean square r and C classes,
`l1_weight_like_sar` gives the same value as SAR's per-sample form at every r; l2 can match at one r only.

Source: Kannan et al. 2018 (arXiv 1803.06373) for l2, as Mao et al. 2019 (arXiv 1909.00900) compare with it.
"""

import math
from typing import Literal

from torch import Tensor

__all__ = ["l1_weight_like_sar", "l2_weight_like_sar", "logit_distance"]


def logit_distance(clean: Tensor, attacked: Tensor, distance: Literal["l1", "l2"]) -> Tensor:
    """Mean distance of two sets of logits (N, classes): a scalar."""
    difference = clean - attacked
    each = difference.abs() if distance == "l1" else difference.square()
    return each.sum(dim=1).mean()


def l1_weight_like_sar(sar_weight: float, classes: int) -> float:
    """The l1 weight whose term is, on average, SAR's per-sample term for normal logit differences."""
    return sar_weight * _spectral_mean(classes) / (classes * math.sqrt(2 / math.pi))


def l2_weight_like_sar(sar_weight: float, classes: int, rms: float) -> float:
    """The l2 weight whose term is SAR's per-sample term for normal logit differences of this root mean square."""
    return sar_weight * _spectral_mean(classes) / (classes * rms)


def _spectral_mean(classes: int) -> float:
    """Mean of sum |Re| + |Im| over the DFT of a normal vector of variance 1."""
    # Entries that are their own conjugate are real with variance C, all others have C / 2 in each part.
    real = 1 if classes % 2 else 2
    deviations = real * math.sqrt(classes) + 2 * (classes - real) * math.sqrt(classes / 2)
    return math.sqrt(2 / math.pi) * deviations
