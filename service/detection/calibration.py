"""Scores to p-values by split conformal calibration, and their fusion."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.detection.curves import Curve, smooth_log_p
from service.detection.fusion import FISHER, Fusion
from service.detection.ranks import alpha_rank, images_needed, p_values, rounded_up
from service.detection.rows import ByClass, Rows
from service.detection.types import Float32s, Float64s, Integers
from service.errors import InvalidRequest

__all__ = ["Calibration", "alpha_rank", "images_needed", "p_values", "rounded_up", "smooth_log_p"]

_ARRAYS = ("detector_scores", "fused_scores")
_FUSION = ("fusion", "fusion_weights")
_BY_CLASS = ("fused_classes", "has_own_row")


def _threshold(clean: Float32s, alpha: float) -> float | None:
    rank = alpha_rank(alpha, clean.size)
    return float(clean[clean.size - rank]) if rank >= 1 else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Clean scores of two splits: of each detector, and of the fused statistic.

    Raises:
        ValueError: a row is empty, not finite, not rising, or of the wrong shape.
    """

    detector_scores: Float32s
    """(K, n), each row rising; first calibration split."""
    fused_scores: Float32s
    """(n2,) rising; second calibration split, which the first did not see."""
    fusion: Fusion = FISHER
    by_class: ByClass | None = None
    """The rows that the fused statistic is ranked in; None for one row of all."""

    def __post_init__(self) -> None:
        for name, rank in zip(_ARRAYS, (2, 1), strict=True):
            values = getattr(self, name)
            if values.dtype != np.float32 or values.ndim != rank or values.size == 0:
                raise ValueError(f"{name}: expected float32 of {rank} axes, got {values.dtype} {values.shape}")
            if not np.isfinite(values).all():
                raise ValueError(f"{name}: holds a number that is not finite")
            if (np.diff(values, axis=-1) < 0).any():
                raise ValueError(f"{name}: not in rising order")
        weights, detectors = self.fusion.weights, len(self.detector_scores)
        if weights is not None and weights.size != detectors:
            raise ValueError(f"fusion_weights: expected {detectors}, one a detector, got {weights.size}")
        if self.by_class is not None and self.by_class.predicted.size != self.fused_scores.size:
            found = self.by_class.predicted.size
            raise ValueError(f"fused_classes: expected {self.fused_scores.size}, one a fused score, got {found}")

    @classmethod
    def from_clean(
        cls, first: Float32s, second: Float32s, *, fusion: Fusion = FISHER, by_class: ByClass | None = None
    ) -> "Calibration":
        """Calibrates on the scores of two disjoint sets of clean images, (n, K) and (n2, K).

        Args:
            fusion: chosen, and its weights learned, without looking at either of them.
            by_class: of the second set, in its order; None for one row of all classes.
        """
        detector_scores = np.sort(first.astype(np.float32), axis=0).T.copy()
        fused = cls(detector_scores=detector_scores, fused_scores=np.zeros(1, np.float32), fusion=fusion).fuse(second)
        order = np.argsort(fused, kind="stable")
        if by_class is not None:
            by_class = ByClass(predicted=by_class.predicted[order], has_own_row=by_class.has_own_row)
        return cls(detector_scores=detector_scores, fused_scores=fused[order], fusion=fusion, by_class=by_class)

    @cached_property
    def _curves(self) -> tuple[Curve, ...]:
        return tuple(Curve.of(row) for row in self.detector_scores)

    @cached_property
    def rows(self) -> Rows:
        """The rows that the fused statistic is ranked in."""
        return Rows.of(self.fused_scores, self.by_class)

    @property
    def smallest_alpha(self) -> float:
        """The smallest false-positive rate that every row of the fused calibration supports."""
        return 1.0 / (self.rows.smallest + 1)

    def p_values(self, scores: Float32s) -> Float64s:
        """(N, K) scores to (N, K) p-values, detector by detector."""
        return np.stack([p_values(scores[:, k], row) for k, row in enumerate(self.detector_scores)], axis=1)

    def smooth_log_p(self, scores: Float32s) -> Float64s:
        """(N, K) scores to (K, N) smooth stand-ins for log p, detector by detector."""
        return np.stack([curve(scores[:, k]) for k, curve in enumerate(self._curves)])

    def fuse(self, scores: Float32s) -> Float32s:
        """The fused statistic of (N, K) scores, at least 0, over the smooth stand-in for log p.

        The detectors depend on each other, so its law is not that of a table: `fused_p_values` ranks it among clean
        images instead.
        """
        return self.fusion(self.smooth_log_p(scores))

    def fused_p_values(self, scores: Float32s, labels: Integers) -> Float64s:
        """(N, K) scores and (N,) predicted classes to (N,) p-values of the fused statistic."""
        return self.rows.p_values(self.fuse(scores), self.rows.of_labels(labels))

    def suspicion(self, scores: Float32s, labels: Integers) -> Float64s:
        """(N, K) scores and (N,) predicted classes to (N,) numbers in the order of the verdict, at every alpha.

        The fused statistic where all classes have one row, else `Rows.order`.
        """
        return self.rows.order(self.fuse(scores), self.rows.of_labels(labels))

    def threshold(self, detector: int, alpha: float) -> float | None:
        """The score above which a detector is flagged at alpha; None when n is too small to flag any."""
        return _threshold(self.detector_scores[detector], alpha)

    def fused_threshold(self, alpha: float) -> float | None:
        """The `suspicion` above which the verdict at alpha is adversarial; None when n is too small for any."""
        return self.rows.threshold(alpha)

    def check_alpha(self, alpha: float, *, largest: float) -> None:
        """Refuses an alpha that the calibration cannot support.

        Every row must support it. A row that is too small for alpha could be left for another one, but then p would
        hang on alpha: an image could be adversarial at an alpha and clean at a larger one.

        Raises:
            InvalidRequest: NaN, outside (0, largest], or more calibration images are needed than there are.
        """
        n = self.rows.smallest
        least = rounded_up(self.smallest_alpha)
        if not 0 < alpha <= largest:
            raise InvalidRequest(
                f"target false-positive rate: expected {least} to {largest:g}, got {alpha:g}",
                field="options.target_fpr",
            )
        if alpha_rank(alpha, n) < 1:
            needed = images_needed(alpha) if alpha > 1e-9 else "over a billion"
            has = "the bundle has" if self.by_class is None else "the bundle, calibrated by class, has a row of"
            raise InvalidRequest(
                f"target false-positive rate {alpha:g} needs {needed} calibration images, {has} {n}; ask for "
                f"{least} or more, or calibrate on more clean images",
                field="options.target_fpr",
            )

    def to_bytes(self) -> bytes:
        """The content of `calibration.npz`; what is as it always was is left out, so that it has the same bytes."""
        arrays: dict[str, np.ndarray] = {name: getattr(self, name) for name in _ARRAYS}
        if self.fusion.kind != "fisher":
            arrays["fusion"] = np.array(self.fusion.kind)
        if self.fusion.weights is not None:
            arrays["fusion_weights"] = self.fusion.weights
        if self.by_class is not None:
            arrays["fused_classes"], arrays["has_own_row"] = self.by_class.predicted, self.by_class.has_own_row
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's own keyword is none of these names
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Calibration":
        """Reads the content of `calibration.npz`.

        Raises:
            ValueError: not such a file, or its numbers are not a calibration.
        """
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = set(arrays)
            if not set(_ARRAYS) <= found <= {*_ARRAYS, *_FUSION, *_BY_CLASS}:
                raise ValueError(
                    f"expected the arrays {', '.join(_ARRAYS)} and at most {', '.join((*_FUSION, *_BY_CLASS))}, got "
                    f"{', '.join(arrays)}"
                )
            return cls(
                **{name: arrays[name] for name in _ARRAYS}, fusion=_fusion_of(arrays), by_class=_by_class_of(arrays)
            )


def _fusion_of(arrays: Mapping[str, np.ndarray]) -> Fusion:
    """Fisher's where nothing is said."""
    kind = arrays["fusion"] if "fusion" in arrays else np.array("fisher")
    if kind.ndim or kind.dtype.kind != "U":
        raise ValueError(f"fusion: expected one word, got {kind.dtype} {kind.shape}")
    return Fusion(kind=kind.item(), weights=arrays.get("fusion_weights"))


def _by_class_of(arrays: Mapping[str, np.ndarray]) -> ByClass | None:
    if not any(name in arrays for name in _BY_CLASS):
        return None
    if missing := [name for name in _BY_CLASS if name not in arrays]:
        raise ValueError(f"expected both of {', '.join(_BY_CLASS)}, got none of {missing[0]}")
    return ByClass(predicted=arrays["fused_classes"], has_own_row=arrays["has_own_row"])
