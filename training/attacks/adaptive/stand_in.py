"""A bundle as the target of adaptive attacks: p-values are steps, so their smooth stand-in gives the gradient."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from service.detection.calibration import Calibration, smooth_log_p
from service.detection.types import Float32s
from service.errors import SetupError
from training.graph import BundleGraph

__all__ = ["GraphTarget", "SmoothLogP", "SmoothSuspicion"]


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
        self.curves = nn.ModuleList([SmoothLogP(row) for row in calibration.detector_scores])

    def forward(self, scores: Tensor) -> Tensor:
        """(N, K) scores to (N,) float64; `fused` is `Calibration.fuse` before its rounding to float32."""
        surprises = -torch.stack([curve(scores[:, k]) for k, curve in enumerate(self.curves)], dim=1)  # (N, K)
        if self.of == "fused":
            suspicion = 2 * surprises.sum(dim=1)
        elif self.of == "largest":
            suspicion = surprises.amax(dim=1)
        else:
            suspicion = surprises[:, int(self.of)]
        return suspicion.clamp_max(float(np.finfo(np.float32).max))


class GraphTarget(nn.Module):
    """A bundle's graph and its calibration as a `Target`.

    The verdict is that of the fused p-value, so judge with `fused`; the others are for guides (see `Loop.run`).
    """

    def __init__(
        self, graph: BundleGraph, calibration: Calibration, of: Literal["fused", "largest"] | int = "fused"
    ) -> None:
        """Takes what a bundle is made of and which suspicion to give (see SmoothSuspicion)."""
        super().__init__()
        self.graph = graph
        self.suspicion = SmoothSuspicion(calibration, of)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) images in [0, 1] to (N, L) logits and (N,) suspicion."""
        logits, _, scores = self.graph.score(images)
        return logits, self.suspicion(scores)
