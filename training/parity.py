"""How far the graph that onnxruntime runs is from the torch module that it was made of."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.detection.graph import Graph
from service.detection.types import Bytes8, Outputs
from service.errors import SetupError
from training.graph import BundleGraph, torch_outputs

__all__ = [
    "BOUNDS",
    "COMPARED",
    "TOLERANCE",
    "Bounds",
    "Parity",
    "QuantisedParity",
    "check_parity",
    "check_quantised",
    "compare_outputs",
    "compare_quantised",
]

PARITY_BATCHES = (1, 7, 64)
TOLERANCE = 1e-3
"""Relative difference of scores that two float32 implementations of the same sums may show."""

COMPARED = 1_000
"""Images that a rounded graph is compared on, at most."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What rounding explains; beyond it something is broken."""

    least_agreement: float
    """Share of clean images that a rounded graph must label as the float network does."""
    largest_shift: float
    """Of a detector's score, root mean square, in standard deviations of that score."""


BOUNDS: Mapping[str, Bounds] = {
    "int8": Bounds(least_agreement=0.95, largest_shift=0.5),
    "float16": Bounds(least_agreement=0.99, largest_shift=0.05),
}
"""By precision. Float16 has 8 times the steps of 8 bits for values of every size; scores move by a few thousandths."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far onnxruntime is from torch on the same images."""

    logits: float
    """Largest difference, absolute."""
    embedding: float
    """Largest difference, absolute."""
    scores: float
    """Largest difference relative to the score, or to 1 where the score is smaller."""
    labels: int
    """Images with another predicted class."""


@dataclass(frozen=True, kw_only=True)
class QuantisedParity:
    """How far a graph of less precision is from the float network on the same clean images."""

    images: int
    label_agreement: float
    """Share with the same predicted class."""
    score_shifts: tuple[float, ...]
    """Root mean square change of each score, in standard deviations of the float network's score."""

    def check(self, whose: str, precision: str) -> None:
        """Refuses what rounding does not explain.

        Args:
            whose: begins the message.
            precision: one of BOUNDS.

        Raises:
            SetupError: too few labels agree, or a score has moved too far, or is no number.
        """
        bounds = BOUNDS[precision]
        # Of numbers and NaN numpy's largest is NaN, which is not within the bounds either.
        if not (self.label_agreement >= bounds.least_agreement and np.max(self.score_shifts) <= bounds.largest_shift):
            shifts = ", ".join(f"{shift:.3g}" for shift in self.score_shifts)
            raise SetupError(
                f"{whose}: expected a graph in {precision} to label at least {bounds.least_agreement:.0%} of the clean "
                "images as the float network does and to move no score by more than "
                f"{bounds.largest_shift:g} of its standard deviation, got {self.label_agreement:.1%} and {shifts}"
            )


def compare_outputs(ours: Outputs, theirs: Outputs) -> Parity:
    """The largest differences between two implementations on the same N images."""
    scale = np.maximum(np.abs(ours.scores), 1.0)
    return Parity(
        logits=float(np.abs(ours.logits - theirs.logits).max()),
        embedding=float(np.abs(ours.embedding - theirs.embedding).max()),
        scores=float((np.abs(ours.scores - theirs.scores) / scale).max()),
        labels=int((ours.logits.argmax(1) != theirs.logits.argmax(1)).sum()),
    )


def compare_quantised(exact: Outputs, rounded: Outputs) -> QuantisedParity:
    """The outputs of a graph of less precision against the float network's on the same N images."""
    spread = np.maximum(exact.scores.std(axis=0), np.finfo(np.float32).tiny)
    shifts = np.sqrt(np.square(rounded.scores - exact.scores).mean(axis=0)) / spread
    return QuantisedParity(
        images=len(exact.scores),
        label_agreement=float((exact.logits.argmax(1) == rounded.logits.argmax(1)).mean()),
        score_shifts=tuple(map(float, shifts)),
    )


def check_parity(graph: BundleGraph, session: Graph, images: Bytes8) -> Parity:
    """Compares torch and onnxruntime at several batch sizes; the worst of them.

    Raises:
        SetupError: they disagree beyond rounding.
    """
    worst = Parity(logits=0.0, embedding=0.0, scores=0.0, labels=0)
    for size in PARITY_BATCHES:
        batch = images[:size]
        found = compare_outputs(torch_outputs(graph, batch), session.run(batch))
        worst = Parity(
            **{f.name: max(getattr(worst, f.name), getattr(found, f.name)) for f in dataclasses.fields(Parity)}
        )
    if worst.scores > TOLERANCE or worst.logits > TOLERANCE or worst.embedding > TOLERANCE:
        raise SetupError(f"the exported graph differs from torch by {worst}; expected at most {TOLERANCE} in each")
    return worst


def check_quantised(
    graph: BundleGraph, sessions: Sequence[Graph], images: Bytes8, *, whose: str, precision: str
) -> QuantisedParity:
    """Compares torch and a graph of less precision on the first of these clean images.

    Args:
        sessions: ways to run it; what is given is the worst of them.
        whose: begins the message.
        precision: one of BOUNDS.

    Raises:
        SetupError: they differ by more than rounding explains.
    """
    some = np.ascontiguousarray(images[:COMPARED])
    exact = torch_outputs(graph, some)
    found = [compare_quantised(exact, session.run(some)) for session in sessions]
    worst = QuantisedParity(
        images=len(some),
        label_agreement=min(one.label_agreement for one in found),
        score_shifts=tuple(np.max([one.score_shifts for one in found], axis=0).tolist()),
    )
    worst.check(whose, precision)
    return worst
