"""Logistic regression that tells attacked from clean rows, as a torch module with a gradient."""

from typing import Self

import torch
from torch import Tensor, nn

__all__ = ["Logistic"]


class Logistic(nn.Module):
    """The log odds of "attacked"; rows are standardised first, with C = 1 of scikit-learn."""

    mean: Tensor
    scale: Tensor
    weights: Tensor
    bias: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, weights: Tensor, bias: Tensor) -> None:
        """Takes (D,) mean, scale and weights, and () bias, float64."""
        super().__init__()
        for name, value in (("mean", mean), ("scale", scale), ("weights", weights), ("bias", bias)):
            self.register_buffer(name, value)

    @classmethod
    def of(cls, clean: Tensor, attacked: Tensor) -> Self:
        """Fitted on (n, D) clean and (m, D) attacked rows, n and m >= 1."""
        from sklearn.linear_model import LogisticRegression  # slow to import, and only fitting needs it

        rows = torch.cat([clean, attacked]).double()
        mean, spread = rows.mean(dim=0), rows.std(dim=0, unbiased=False)
        scale = torch.where(spread > 0, spread, 1.0)
        found = LogisticRegression(max_iter=5_000)
        found.fit(((rows - mean) / scale).numpy(), [0] * len(clean) + [1] * len(attacked))
        weights, bias = torch.from_numpy(found.coef_[0].copy()), torch.tensor(float(found.intercept_[0])).double()
        return cls(mean, scale, weights, bias)

    def forward(self, rows: Tensor) -> Tensor:
        """(N, D) rows to (N,) float64."""
        return ((rows.double() - self.mean) / self.scale) @ self.weights + self.bias
