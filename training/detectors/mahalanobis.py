"""How far rows lie from those of clean images, as one Gaussian sees it."""

from typing import Self

import torch
from torch import Tensor, nn

from service.errors import SetupError

__all__ = ["MahalanobisDistance", "clean_gaussian", "shrunk_whitening"]


class MahalanobisDistance(nn.Module):
    """Squared Mahalanobis distance to the mean of clean rows, whatever the class."""

    mean: Tensor
    whitening: Tensor

    def __init__(self, mean: Tensor, whitening: Tensor) -> None:
        """Takes the (D,) mean and the (D, D) whitening of the covariance."""
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("whitening", whitening.float())

    @classmethod
    def of(cls, rows: Tensor) -> Self:
        """Fitted on (n, D) clean rows; raises what clean_gaussian raises."""
        return cls(*clean_gaussian(rows))

    def forward(self, rows: Tensor) -> Tensor:
        """(N,) of (N, D) rows."""
        return ((rows - self.mean) @ self.whitening).square().sum(dim=1)


def clean_gaussian(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and whitening (D, D) of the shrunk covariance of (n, D) clean rows, float64.

    Raises:
        SetupError: there are fewer than two rows.
    """
    if len(rows) < 2:
        raise SetupError(
            f"expected 2 clean images or more to fit detectors on, got {len(rows)}; enlarge data.fit in the recipe"
        )
    mean = rows.double().mean(dim=0)
    return mean, shrunk_whitening(rows.double() - mean)


def shrunk_whitening(centred: Tensor) -> Tensor:
    """W of the shrunk covariance of centred rows, so that |row W|^2 is the squared Mahalanobis distance.

    Args:
        centred: (n, D), float64, each row minus its mean.

    Returns:
        (D, D) float64, W W^T = inverse covariance.

    Source: Ledoit & Wolf 2004, shrinkage towards a multiple of the identity, by scikit-learn. The triangular
        factor of the covariance is inverted, never the covariance itself.
    """
    from sklearn.covariance import ledoit_wolf  # slow to import, and only fitting needs it

    covariance, _ = ledoit_wolf(centred.numpy(), assume_centered=True)
    # The embedding lives on a sphere: with few images a direction may not vary at all.
    floor = max(1e-6 * float(covariance.trace()) / len(covariance), 1e-12)
    shrunk = torch.from_numpy(covariance) + floor * torch.eye(len(covariance), dtype=torch.float64)
    lower = torch.linalg.cholesky(shrunk)
    identity = torch.eye(len(lower), dtype=torch.float64)
    inverse: Tensor = torch.linalg.solve_triangular(lower, identity, upper=False)
    return inverse.T.contiguous()
