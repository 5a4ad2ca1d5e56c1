"""Records of `report.json` beside those of the attacks themselves: see `results`, which has their conventions."""

from dataclasses import dataclass

from training.evaluation.bootstrap import Estimate

__all__ = ["Check", "Convergence", "Cost", "Lengthened", "SweepAt", "SweepPoint", "Uniformity", "Without"]


@dataclass(frozen=True, kw_only=True)
class Uniformity:
    """Whether the p-values of clean test images are uniform, as they are where the calibration holds."""

    detector: str
    """Or "fused"."""
    images: int
    calibration_images: int
    distance: float
    """Kolmogorov-Smirnov distance of the mid-ranks from uniform."""
    bound: float
    """Of two samples of these sizes; uniform p-values exceed it once in a thousand times."""
    is_beyond: bool


@dataclass(frozen=True, kw_only=True)
class Without:
    """The bundle without one of its detectors, calibrated again, under the attacks that saw no detector."""

    detector: str | None
    """That is left out; null for none."""
    mean_auroc_all: float | None
    """Over the attacks, all attacked images."""
    mean_auroc_successful: float | None
    worst_attack: str | None
    """The attack of the lowest AUROC over all attacked images."""
    worst_auroc: float | None
    found: float | None
    """Mean over the attacks of the share of successful ones found at 5 % false positives."""
    false_positive_rate: Estimate | None
    """On all clean test images at the bundle's default alpha; null where that is refused."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an answer costs on one core of the machine of this report, detectors and p-values included."""

    single_ms: float
    """Median time of an image alone."""
    batched_ms: float
    """Median time an image in batches of `batch`."""
    batch: int
    graph_mb: float
    """Size of model.onnx, 10^6 bytes."""
    passes: int | None
    """Passes through the classifier; null where its torch twin was not made."""
    processor: str


@dataclass(frozen=True, kw_only=True)
class SweepAt:
    """With rejection at one false-positive rate; see Rejection."""

    alpha: float
    robust_accuracy: Estimate
    strict: Estimate


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """The worst case of some images within one multiple of the budget, over every attack that keeps to it."""

    share: float
    """Of the budget."""
    norm: str
    eps: float
    accuracy: Estimate
    """Of the classifier alone: right on every version."""
    alone: Estimate
    """The same under one attack, margin PGD of this very size: it may rise where an attack is misled."""
    rejection: tuple[SweepAt, ...]
    """Empty where no attack that knew the detectors was aimed at this size."""


@dataclass(frozen=True, kw_only=True)
class Lengthened:
    """One attack with so many steps and restarts."""

    steps: int
    restarts: int
    accepted_and_wrong: Estimate


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """Whether the strongest attack of the sweep still gains by computing more."""

    attack: str
    norm: str
    eps: float
    alpha: float
    rows: tuple[Lengthened, ...]
    """Rising steps of one restart, then rising restarts."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check that the evaluation made of itself."""

    name: str
    passed: bool
    words: str
    """What was found and what was expected."""
