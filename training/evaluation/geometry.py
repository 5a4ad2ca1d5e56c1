"""How attacks move images among the classes: TLA's distances, and the spectrum of the logits' change.

D(u, v) = 1 - |cos(u, v)|, in [0, 1]. Source: Mao et al. 2019 (arXiv 1909.00900).
"""

import torch
from torch import Tensor

from training.losses.sar import spectral_distance

__all__ = ["class_distances", "logit_spectral_gap", "margin_satisfied"]

_ROWS_AT_ONCE = 1_000  # against 10,000 images: 40 MB


def class_distances(anchors: Tensor, others: Tensor, labels: Tensor) -> tuple[float | None, float | None]:
    """Mean D over pairs of the same class, and over pairs of different classes.

    A pair is an anchor and another image; the two versions of one image are no pair.

    Args:
        anchors: (N, D) embeddings of unit length, of clean or of attacked images.
        others: (N, D) embeddings of unit length of the same images, clean.
        labels: (N,) true classes.

    Returns:
        Each mean; None where there is no such pair.
    """
    sums, counts = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.long)
    positions = torch.arange(len(labels))
    for rows in torch.split(positions, _ROWS_AT_ONCE):
        distances = 1 - (anchors[rows] @ others.T).abs()  # (rows, N)
        same = labels[rows, None] == labels
        pair = positions[rows, None] != positions
        for which, chosen in enumerate((same & pair, ~same)):
            sums[which] += distances[chosen].double().sum()
            counts[which] += chosen.sum()
    within, between = (
        float(total / count) if count else None for total, count in zip(sums, counts.tolist(), strict=True)
    )
    return within, between


def margin_satisfied(embeddings: Tensor, labels: Tensor, means: Tensor, *, margin: float) -> float:
    """Share of images whose D to their own class's mean is at least `margin` below D to every other class's mean.

    Args:
        embeddings: (N, D) of unit length, of the attacked images.
        labels: (N,) true classes.
        means: (L, D) of each class over clean embeddings of unit length; their own length does not matter.
        margin: by which the own class must be nearer.
    """
    distances = 1 - (embeddings @ torch.nn.functional.normalize(means, dim=1).T).abs()  # (N, L)
    own = distances.gather(1, labels[:, None])[:, 0]
    others = distances.scatter(1, labels[:, None], torch.inf).amin(dim=1)
    return float((own + margin <= others).double().mean())


def logit_spectral_gap(clean: Tensor, attacked: Tensor) -> float:
    """Mean over images of the sum over frequencies of |Re| + |Im| of the DFT of the logits' change.

    Args:
        clean: (N, L) logits.
        attacked: (N, L) logits of the attacked versions.

    Source: the per-image form of SAR's term (arXiv 2306.14262, 2212.12732).
    """
    return float(spectral_distance(clean.double(), attacked.double(), "per_sample"))
