"""A bundle as the target of adaptive attacks: p-values are steps, so their smooth stand-in gives the gradient."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from service.detection.calibration import Calibration, smooth_log_p
from service.detection.rows import Rows
from service.detection.types import Float32s
from service.errors import SetupError
from training.graph import BundleGraph

__all__ = ["GraphTarget", "RowOrder", "SmoothLogP", "SmoothSuspicion"]

_LARGEST = float(np.finfo(np.float32).max)


class SmoothLogP(nn.Module):
    """`service.detection.calibration.smooth_log_p` of one detector, with a gradient.

    Piecewise linear: to the left of every knot lies one segment, to the right of the last one the tail.
    """

    anchors: Tensor
    values: Tensor
    slopes: Tensor
    knots: Tensor

    def __init__(self, clean: Float32s) -> None:
        """Takes (n,) calibration scores in rising order, n >= 1."""
        super().__init__()
        knots = np.unique(clean.astype(np.float64))  # (m,)
        values = smooth_log_p(knots, clean)
        # The tail is straight, so its slope may be read far out, where the rounding of a small difference is no matter.
        far = knots[-1] + max(1.0, abs(float(knots[-1])))
        tail = (smooth_log_p(np.array([far]), clean)[0] - values[-1]) / (far - knots[-1])
        slopes = np.concatenate([[0.0], np.diff(values) / np.diff(knots), [tail]])  # (m + 1,)
        self.register_buffer("knots", torch.from_numpy(knots))
        self.register_buffer("anchors", torch.from_numpy(np.concatenate([knots[:1], knots])))  # (m + 1,)
        self.register_buffer("values", torch.from_numpy(np.concatenate([values[:1], values])))  # (m + 1,)
        self.register_buffer("slopes", torch.from_numpy(slopes))

    def forward(self, scores: Tensor) -> Tensor:
        """(N,) scores to (N,) float64, at most 0; -inf where a score is not finite, which counts as larger than all."""
        finite = torch.isfinite(scores)
        # Masked before and not after: the gradient of an infinite score would be NaN even where it is not used.
        scores = torch.where(finite, scores, 0.0).double()
        segment = torch.searchsorted(self.knots, scores.detach().contiguous(), right=True)
        inside = self.values[segment] + self.slopes[segment] * (scores - self.anchors[segment])
        return torch.where(finite, inside, -torch.inf)


class SmoothSuspicion(nn.Module):
    """Scores of all detectors to one suspicion: the fused statistic, one detector's -log p, or the largest of these."""

    weights: Tensor | None

    def __init__(self, calibration: Calibration, of: Literal["fused", "largest"] | int = "fused") -> None:
        """Takes a bundle's calibration and which suspicion to give; a number is a detector's place in the bundle.

        Raises:
            SetupError: there is no such suspicion.
        """
        super().__init__()
        detectors = len(calibration.detector_scores)
        if of not in ("fused", "largest", *range(detectors)):
            raise SetupError(f"suspicion: expected fused, largest or a detector from 0 to {detectors - 1}, got {of!r}")
        self.of = of
        self.fusion = calibration.fusion
        weights = self.fusion.weights
        self.register_buffer("weights", None if weights is None else torch.from_numpy(weights))
        self.curves = nn.ModuleList([SmoothLogP(row) for row in calibration.detector_scores])

    def forward(self, scores: Tensor) -> Tensor:
        """(N, K) scores to (N,) float64; `fused` is `Calibration.fuse` before its rounding to float32."""
        surprises = -torch.stack([curve(scores[:, k]) for k, curve in enumerate(self.curves)], dim=1)  # (N, K)
        if self.of == "fused":
            suspicion = self._fused(surprises)
        elif self.of == "largest":
            suspicion = surprises.amax(dim=1)
        else:
            suspicion = surprises[:, int(self.of)]
        return suspicion.clamp_max(_LARGEST)

    def _fused(self, surprises: Tensor) -> Tensor:
        """(N, K) -log p to (N,), as `service.detection.fusion.Fusion` has it."""
        if self.fusion.kind == "fisher":
            return 2 * surprises.sum(dim=1)
        bounded = surprises.clamp_max(_LARGEST)  # infinity would give a gradient of NaN
        if self.weights is None:
            return bounded.logsumexp(dim=1) - math.log(bounded.shape[1])
        return torch.where(surprises.isinf().any(dim=1), torch.inf, bounded @ self.weights)


class RowOrder(nn.Module):
    """Statistics of rows to the suspicion that `service.detection.rows.Rows.order` gives, with a gradient.

    The value is exactly the service's, so that the kept image is the one of the largest p-value. It is a step for each
    rank, so its gradient is that of the smooth -log p in the row of the predicted class: for one class a multiple of
    the statistic's own.
    """

    def __init__(self, rows: Rows) -> None:
        """Takes two rows or more."""
        super().__init__()
        self.rows = rows
        self.curves = nn.ModuleList([SmoothLogP(row) for row in rows.scores])

    def forward(self, statistic: Tensor, labels: Tensor) -> Tensor:
        """(N,) statistics and (N,) predicted classes to (N,) float64."""
        numbers = self.rows.of_labels(labels.cpu().numpy())
        exact = torch.from_numpy(self.rows.order(statistic.detach().float().cpu().numpy(), numbers)).to(statistic)
        smooth = -torch.stack([curve(statistic) for curve in self.curves], dim=1)  # (N, R)
        own = smooth.gather(1, torch.from_numpy(numbers).to(labels)[:, None])[:, 0]
        return exact + (own - own.detach())


class GraphTarget(nn.Module):
    """A bundle's graph and its calibration as a `Target`.

    The verdict is that of the fused p-value, whose order `fused` has, so judge with it; the others are for guides (see
    `Loop.run`).
    """

    def __init__(
        self, graph: BundleGraph, calibration: Calibration, of: Literal["fused", "largest"] | int = "fused"
    ) -> None:
        """Takes what a bundle is made of and which suspicion to give (see SmoothSuspicion)."""
        super().__init__()
        self.graph = graph
        self.suspicion = SmoothSuspicion(calibration, of)
        self.order = RowOrder(calibration.rows) if of == "fused" and calibration.by_class is not None else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) images in [0, 1] to (N, L) logits and (N,) suspicion."""
        logits, _, scores = self.graph.score(images)
        suspicion: Tensor = self.suspicion(scores)
        return logits, suspicion if self.order is None else self.order(suspicion, logits.argmax(dim=1))
