"""Ways to fuse a run's detectors, side by side on its selection part: to choose one by, and for nothing else.

No image here is of a calibration part or a test image. The attacks are short and see no detector, so that the figures
flatter all ways alike; what the chosen one is worth, `evaluate` says.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.detection.calibration import Calibration, alpha_rank
from service.detection.fusion import FUSION_KINDS, Fusion, FusionKind
from service.detection.rows import rejects
from service.detection.types import Float32s, Float64s, Integers
from service.errors import SetupError
from training.evaluation.metrics import auroc
from training.fusion import fit_weights

__all__ = ["ALPHAS", "FOUND_AT", "Contest", "Scores", "compare_fusions"]

ALPHAS = (0.01, 0.05)
"""False-positive rates at which clean images are counted."""
FOUND_AT = 0.05
"""The one at which attacked images are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What a run's detectors say of everything that fusions are compared by; K columns each."""

    detectors: tuple[str, ...]
    calibration: Float32s
    fusion: Float32s
    clean: Float32s
    """(N, K) of images that were put aside for the comparison."""
    attacked: Mapping[str, Float32s]
    """Attack to the scores of those of these images that it makes the classifier misread."""
    lesson: tuple[Float64s, Float64s]
    """-log p of forged perturbations and of harmless changes, which weights are learned from."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One way to fuse and what it finds."""

    fusion: FusionKind | None
    """None: a detector alone."""
    detectors: tuple[str, ...]
    left_out: str | None
    """The detector that is not among them, if any."""
    weights: tuple[float, ...] | None
    false_positives: dict[str, float | None]
    """Promised rate to the share of clean images rejected; None where the calibration is too small for it."""
    aurocs: dict[str, float | None]
    """Attack to the chance that what fools scores above a clean image; None where nothing fools."""
    found: dict[str, float | None]
    """Attack to the share rejected, of what fools, at a promised 5 %."""
    mean_auroc: float | None
    worst_auroc: float | None
    mean_found: float | None
    worst_found: float | None


def compare_fusions(scores: Scores) -> tuple[list[Contest], list[str]]:
    """Every kind with all detectors, each detector alone, and every kind without each detector.

    Returns:
        The contests in that order, and what was left out and why, in sentences.
    """
    contests, remarks = [], []
    for kind, columns in _entries(len(scores.detectors)):
        names = tuple(scores.detectors[k] for k in columns)
        try:
            fusion = _fusion(kind, scores.lesson, columns)
        except SetupError as error:
            remarks.append(f"{kind} of {', '.join(names)} is left out: {error}")
            continue
        contests.append(_contest(scores, kind, fusion, columns))
    return contests, remarks


def _entries(count: int) -> Iterator[tuple[FusionKind | None, list[int]]]:
    every = list(range(count))
    yield from ((kind, every) for kind in FUSION_KINDS)
    if count > 1:
        yield from ((None, [k]) for k in every)
    if count > 2:  # of two, what is left would be a detector alone
        yield from ((kind, [k for k in every if k != out]) for kind, out in itertools.product(FUSION_KINDS, every))


def _fusion(kind: FusionKind | None, lesson: tuple[Float64s, Float64s], columns: Sequence[int]) -> Fusion:
    if kind != "weighted":
        return Fusion(kind=kind or "fisher")  # of one detector any kind has the same order
    return Fusion(kind=kind, weights=fit_weights(*(part[:, columns] for part in lesson)))


def _contest(scores: Scores, kind: FusionKind | None, fusion: Fusion, columns: Sequence[int]) -> Contest:
    made = Calibration.from_clean(scores.calibration[:, columns], scores.fusion[:, columns], fusion=fusion)
    clean = made.fuse(scores.clean[:, columns]).astype(np.float64)
    aurocs, found = {}, {}
    for name, attacked in scores.attacked.items():
        aurocs[name] = auroc(made.fuse(attacked[:, columns]).astype(np.float64), clean)
        found[name] = _rejected(made, attacked[:, columns], FOUND_AT)
    out = [name for k, name in enumerate(scores.detectors) if k not in columns]
    return Contest(
        fusion=kind,
        detectors=tuple(scores.detectors[k] for k in columns),
        left_out=out[0] if kind and out else None,
        weights=None if fusion.weights is None else tuple(fusion.weights.tolist()),
        false_positives={f"{alpha:g}": _rejected(made, scores.clean[:, columns], alpha) for alpha in ALPHAS},
        aurocs=aurocs,
        found=found,
        mean_auroc=_mean(aurocs.values()),
        worst_auroc=_worst(aurocs.values()),
        mean_found=_mean(found.values()),
        worst_found=_worst(found.values()),
    )


def _rejected(made: Calibration, scores: Float32s, alpha: float) -> float | None:
    """Share of (N, K) scores that the verdict at alpha rejects."""
    if not len(scores) or alpha_rank(alpha, made.rows.smallest) < 1:
        return None
    labels: Integers = np.zeros(len(scores), np.int64)
    return float(rejects(made.fused_p_values(scores, labels), labels, made.rows.sizes, alpha).mean())


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _worst(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)
