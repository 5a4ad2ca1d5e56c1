"""Local intrinsic dimensionality on several layers (Ma et al. 2018)."""

import torch
from torch import Tensor, nn

from deploy.peers.layers import Layers
from deploy.peers.logistic import Logistic
from deploy.peers.peer import Material, Peer, TorchScorer, rows_of

__all__ = ["LID", "local_dimension"]

_REFERENCES, _NEIGHBOURS = 100, 20


class _Dimensions(nn.Module):
    def __init__(self, layers: Layers, references: Tensor, neighbours: int) -> None:
        super().__init__()
        self.layers = layers
        with torch.no_grad():
            maps = [one.flatten(1) for one in layers(references)]
        self.references = nn.ParameterList([nn.Parameter(one, requires_grad=False) for one in maps])
        self.neighbours = neighbours

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images in [0, 1] to (N, K), K layers."""
        layers = zip(self.layers(images), self.references, strict=True)
        found = [local_dimension(maps.flatten(1), clean, self.neighbours) for maps, clean in layers]
        return torch.stack(found, dim=1)


class _Lid(TorchScorer):
    def __init__(self, dimensions: _Dimensions, weights: Logistic) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.weights = weights

    def forward(self, images: Tensor) -> Tensor:
        odds: Tensor = self.weights(self.dimensions(images))
        return odds


def local_dimension(rows: Tensor, references: Tensor, neighbours: int) -> Tensor:
    """Maximum-likelihood estimate -1 / mean(log(r_i / r_k)) from the distances r_1 <= ... <= r_k to references.

    Args:
        rows: (N, D).
        references: (n, D), n >= k; none of the rows is among them.
        neighbours: k.

    Returns:
        (N,).

    Source: Ma et al. 2018 (arXiv 1801.02613), equation 4.
    """
    rows, references = rows.double(), references.double()
    squares = rows.square().sum(dim=1)[:, None] + references.square().sum(dim=1) - 2 * rows @ references.T  # (N, n)
    nearest = squares.clamp_min(1e-12).topk(neighbours, dim=1, largest=False).values  # rising
    logs = 0.5 * (nearest.log() - nearest[:, -1:].log())  # at most 0
    return -1 / logs.mean(dim=1).clamp_max(-1e-9)


def _fit(material: Material) -> TorchScorer:
    attacked = material.attacks_that_fool()
    references = material.fit.at_most(_REFERENCES).images
    dimensions = _Dimensions(Layers(material.model), references, min(_NEIGHBOURS, len(references)))
    clean = torch.cat([material.calm, material.noisy])
    return _Lid(dimensions, Logistic.of(rows_of(dimensions, clean), rows_of(dimensions, attacked)))


LID = Peer(
    name="lid",
    title="LID",
    source="Ma et al. 2018 (arXiv 1801.02613), 20 nearest of 100 clean images; those are the same for all images and "
    "of the fit part, where theirs are the clean images of the batch itself, the attacked image's own among them",
    fit_data="clean and PGD",
    fit=_fit,
)
