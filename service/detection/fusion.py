"""How the detectors' p-values become one statistic; larger is more suspicious, and it never falls as a score grows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from service.detection.types import Float32s, Float64s

__all__ = ["FISHER", "FUSION_KINDS", "Fusion", "FusionKind"]

FusionKind = Literal["fisher", "harmonic", "weighted"]
FUSION_KINDS: tuple[FusionKind, ...] = get_args(FusionKind)

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fusion:
    """One way to fuse, over the smooth stand-in for log p.

    * `fisher`: -2 sum log p, many weak signs (Fisher 1932).
    * `harmonic`: -log(K / sum 1/p), one strong sign (Wilson 2019, doi 10.1073/pnas.1814092116).
    * `weighted`: sum w (-log p), w >= 0, with weights that were learned.

    The detectors depend on each other, so that no table of any of them holds; the statistic is ranked among that of
    clean images instead.

    Raises:
        ValueError: an unknown kind; weights that do not belong to it, are negative, not finite or all 0.
    """

    kind: FusionKind = "fisher"
    weights: Float64s | None = None
    """(K,) of `weighted`, at least 0, not all 0; None for the others."""

    def __post_init__(self) -> None:
        if self.kind not in FUSION_KINDS:
            raise ValueError(f"fusion: expected one of {', '.join(FUSION_KINDS)}, got {str(self.kind)[:64]!r}")
        if (self.weights is not None) != (self.kind == "weighted"):
            given = "none" if self.weights is None else "some"
            raise ValueError(f"fusion_weights: expected them with weighted only, got {given} with {self.kind}")
        if self.weights is None:
            return
        if self.weights.dtype != np.float64 or self.weights.ndim != 1:
            raise ValueError(
                f"fusion_weights: expected float64 of 1 axis, got {self.weights.dtype} {self.weights.shape}"
            )
        if not (np.isfinite(self.weights).all() and (self.weights >= 0).all() and self.weights.any()):
            raise ValueError(f"fusion_weights: expected numbers of at least 0, not all 0, got {self.weights.tolist()}")

    def __call__(self, logs: Sequence[Float64s] | Float64s) -> Float32s:
        """The statistic of N images.

        Args:
            logs: (K, N) smooth log p, at most 0; -inf for a score that is not finite.

        Returns:
            (N,) at least 0; the largest float32 wherever a score is not finite. float32, because that is what a
            calibration keeps.
        """
        return np.asarray(np.minimum(self._statistic(np.asarray(logs)), _LARGEST), dtype=np.float32)

    def _statistic(self, logs: Float64s) -> Float64s:
        if self.kind == "fisher":
            return np.asarray(-2.0 * np.sum(logs, axis=0))
        surprises = np.minimum(-logs, _LARGEST)  # (K, N); infinity would give NaN in what follows
        if self.weights is None:
            most = surprises.max(axis=0)
            return np.asarray(most + np.log(np.exp(surprises - most).sum(axis=0)) - np.log(len(surprises)))
        # A detector of weight 0 that gave no number is suspicious all the same.
        return np.where(np.isinf(logs).any(axis=0), _LARGEST, self.weights @ surprises)


FISHER = Fusion()
