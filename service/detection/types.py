"""Array types and records that the detection code shares.

Axes everywhere: N images, H height, W width, C channels, L classes, D embedding dimensions, K detectors,
n calibration images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import AdvsentryError

__all__ = [
    "Bools",
    "Bytes8",
    "ClassScore",
    "Detection",
    "DetectorScore",
    "Flag",
    "FlagReason",
    "Float32s",
    "Float64s",
    "Integers",
    "Measurements",
    "Outputs",
    "Scored",
    "Verdict",
    "Waiter",
    "gather",
]

Bytes8: TypeAlias = NDArray[np.uint8]
Bools: TypeAlias = NDArray[np.bool_]
Float32s: TypeAlias = NDArray[np.float32]
Float64s: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]


class Verdict(StrEnum):
    """What the service says of one image at one alpha."""

    CLEAN = "clean"
    ADVERSARIAL = "adversarial"


class FlagReason(StrEnum):
    """What a detector noticed; the names are part of the wire contract, an open set."""

    UNSPECIFIED = "UNSPECIFIED"
    """Only for clients: the server gave a reason that is newer than they are."""
    FEATURE_DENSITY = "FEATURE_DENSITY"
    INPUT_SPECTRUM = "INPUT_SPECTRUM"
    NEIGHBOUR_DISAGREEMENT = "NEIGHBOUR_DISAGREEMENT"
    TRANSFORM_INSTABILITY = "TRANSFORM_INSTABILITY"
    LOW_CONFIDENCE = "LOW_CONFIDENCE"
    ENERGY = "ENERGY"
    OUT_OF_DISTRIBUTION = "OUT_OF_DISTRIBUTION"
    NEAR_DUPLICATE_QUERIES = "NEAR_DUPLICATE_QUERIES"


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """What the graph gives for N images."""

    logits: Float32s
    """(N, L)."""
    embedding: Float32s
    """(N, D), unit L2 norm."""
    scores: Float32s
    """(N, K); larger is more suspicious."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurements:
    """Outputs of N images with everything that needs no alpha."""

    outputs: Outputs
    probabilities: Float64s
    """(N, L), each row sums to 1."""
    p_values: Float64s
    """(N, K) in [1 / (n + 1), 1]; small is suspicious."""
    fused_p_value: Float64s
    """(N,) in [1 / (m + 1), 1], m being the images of the row that it was ranked in."""

    @property
    def labels(self) -> Integers:
        """(N,) predicted classes."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def margins(self) -> Float64s:
        """(N,) the largest probability minus the second: how far an answer is from another label, in [0, 1]."""
        top = np.partition(self.probabilities, -2, axis=1)
        return np.asarray(top[:, -1] - top[:, -2])

    def __len__(self) -> int:
        return len(self.fused_p_value)

    def take(self, rows: Sequence[int]) -> "Measurements":
        """Those rows, in that order."""
        outputs = self.outputs
        return Measurements(
            outputs=Outputs(
                logits=outputs.logits[rows], embedding=outputs.embedding[rows], scores=outputs.scores[rows]
            ),
            probabilities=self.probabilities[rows],
            p_values=self.p_values[rows],
            fused_p_value=self.fused_p_value[rows],
        )

    @classmethod
    def join(cls, parts: "Sequence[Measurements]") -> "Measurements":
        """All rows of one or more."""
        if len(parts) == 1:
            return parts[0]
        outputs = [part.outputs for part in parts]
        return cls(
            outputs=Outputs(
                logits=np.concatenate([part.logits for part in outputs]),
                embedding=np.concatenate([part.embedding for part in outputs]),
                scores=np.concatenate([part.scores for part in outputs]),
            ),
            probabilities=np.concatenate([part.probabilities for part in parts]),
            p_values=np.concatenate([part.p_values for part in parts]),
            fused_p_value=np.concatenate([part.fused_p_value for part in parts]),
        )


@dataclass(eq=False, slots=True)  # not frozen: that doubles what making one costs, and there is one for each image
class Scored:
    """One row of the measurements of the batch that an image ran in, and what that took."""

    measured: Measurements
    row: int
    queue_s: float
    """From the queue's door to the start of the run."""
    inference_s: float
    """Of the whole batch."""
    batch_size: int
    image: Bytes8 | None = None
    """(H, W, C), where somebody is to look at it after its answer is known; he takes it out."""


class Waiter(Protocol):
    """Who waits for an image's row. What it is told it only notes: what it raised would fall on its batch-mates."""

    @property
    def is_settled(self) -> bool:
        """Whether it has its row or an error, or has left; then it is told nothing."""

    def scored(self, row: Scored) -> None:
        """The row."""

    def failed(self, error: AdvsentryError) -> None:
        """Why there is none."""


def gather(scored: Sequence[Scored]) -> Measurements:
    """The rows of several images, in their order, as one table; neighbours mostly ran in one batch."""
    runs = groupby(scored, key=lambda one: id(one.measured))
    batches = [list(run) for _, run in runs]
    return Measurements.join([batch[0].measured.take([one.row for one in batch]) for batch in batches])


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class and, where shown, how likely it is."""

    index: int
    label: str
    probability: float | None


@dataclass(frozen=True, kw_only=True)
class DetectorScore:
    """One detector's answer; what the caller may not see is None."""

    detector: str
    flagged: bool
    score: float | None
    p_value: float | None
    p_value_at_floor: bool
    """True when p is the smallest that n calibration images can give: read it as "at most"."""
    threshold: float | None
    """Scores above it are flagged at the applied alpha."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A detector that fired, with a reason that a person understands."""

    reason: FlagReason
    detector: str
    message: str
    p_value: float | None


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Everything that is said of one image; what the caller may not see is None or empty."""

    top: ClassScore
    classes: tuple[ClassScore, ...]
    """Likeliest first."""
    verdict: Verdict
    p_value: float | None
    """The fused p-value, of which the verdict is made."""
    alpha: float
    """The false-positive rate that the verdict keeps on clean images."""
    detectors: tuple[DetectorScore, ...]
    flags: tuple[Flag, ...]
    embedding: tuple[float, ...]
