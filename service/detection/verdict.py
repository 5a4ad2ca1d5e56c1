"""Measurements and an alpha to what is said of an image, and how much of it a caller may see."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.detection.bundle import Bundle
from service.detection.calibration import Calibration, alpha_rank
from service.detection.manifest import DetectorEntry
from service.detection.rows import rejects
from service.detection.types import (
    Bools,
    ClassScore,
    Detection,
    DetectorScore,
    Flag,
    FlagReason,
    Float64s,
    Measurements,
    Verdict,
)
from service.errors import InvalidRequest, PermissionRefused

__all__ = [
    "Judged",
    "RevealMode",
    "Shown",
    "Wish",
    "alpha_steps",
    "check_step",
    "check_wish",
    "flag_of",
    "flag_of_history",
    "judge",
    "reveal",
    "round_up",
]


class RevealMode(StrEnum):
    """What the server shows at most; exact scores would guide an adaptive attacker."""

    DECISION = "decision"
    """The top label and the verdict."""
    P_VALUES = "p_values"
    """Probabilities to 3 decimals, flags, p-values rounded up to 1, 2, 5 x 10^-k."""
    SCORES = "scores"
    """Everything, exactly."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a caller asks to see."""

    detectors: tuple[str, ...] = ()
    """Rows to return; all when empty. Never changes the verdict or the fused p-value."""
    top_k: int = 0
    """Classes to return; all when 0."""
    embedding: bool = False
    raw_scores: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Everything there is to say of N images at one alpha, with nothing hidden."""

    bundle: Bundle
    measured: Measurements
    alpha: float
    is_adversarial: Bools
    """(N,)"""
    is_flagged: Bools
    """(N, K)"""
    is_at_floor: Bools
    """(N, K): the p-value is the smallest that n calibration images can give."""

    def detections(self) -> "list[Detection]":
        """With nothing hidden."""
        return reveal(self, RevealMode.SCORES, Wish(embedding=True, raw_scores=True)).detections()


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """What one caller sees of N images, fact by fact; what is hidden is None or has no entries.

    Lists, not arrays: they are read one by one. `detection` is one image's row, and the wire format says the same.
    """

    class_names: Sequence[str]
    alpha: float
    classes: list[list[int]]
    """(N, classes shown), likeliest first."""
    probabilities: list[list[float]] | None
    """As `classes`."""
    is_adversarial: list[bool]
    p_values: list[float] | None
    detectors: Sequence[DetectorEntry]
    """(R,), those shown."""
    is_flagged: list[list[bool]]
    """(N, R), as are the next three."""
    is_at_floor: list[list[bool]]
    detector_p_values: list[list[float]]
    scores: list[list[float]] | None
    thresholds: Sequence[float | None] | None
    """(R,)"""
    embeddings: list[list[float]] | None
    """(N, D)"""
    history: list[float | None] | None = None
    """(N,) p-values of images that the query history flags; no part of `p_values`, nor of a verdict."""

    def __len__(self) -> int:
        return len(self.classes)

    def only(self, i: int) -> "Shown":
        """The same of one image."""
        return Shown(
            class_names=self.class_names,
            alpha=self.alpha,
            classes=[self.classes[i]],
            probabilities=None if self.probabilities is None else [self.probabilities[i]],
            is_adversarial=[self.is_adversarial[i]],
            p_values=None if self.p_values is None else [self.p_values[i]],
            detectors=self.detectors,
            is_flagged=[self.is_flagged[i]],
            is_at_floor=[self.is_at_floor[i]],
            detector_p_values=[self.detector_p_values[i]],
            scores=None if self.scores is None else [self.scores[i]],
            thresholds=self.thresholds,
            embeddings=None if self.embeddings is None else [self.embeddings[i]],
            history=None if self.history is None else [self.history[i]],
        )

    def detections(self) -> list[Detection]:
        """Every image's row."""
        return [self.detection(i) for i in range(len(self))]

    def detection(self, i: int) -> Detection:
        """One image's row."""
        classes = tuple(
            ClassScore(
                index=index,
                label=self.class_names[index],
                probability=None if self.probabilities is None else self.probabilities[i][place],
            )
            for place, index in enumerate(self.classes[i])
        )
        return Detection(
            top=classes[0],
            classes=classes,
            verdict=Verdict.ADVERSARIAL if self.is_adversarial[i] else Verdict.CLEAN,
            p_value=None if self.p_values is None else self.p_values[i],
            alpha=self.alpha,
            detectors=tuple(self._detector(i, r) for r in range(len(self.detectors))),
            flags=(
                *(
                    flag_of(entry, self.detector_p_values[i][r])
                    for r, entry in enumerate(self.detectors)
                    if self.is_flagged[i][r]
                ),
                *self._flags_of_history(i),
            ),
            embedding=() if self.embeddings is None else tuple(self.embeddings[i]),
        )

    def _flags_of_history(self, i: int) -> list[Flag]:
        p_value = None if self.history is None else self.history[i]
        return [] if p_value is None else [flag_of_history(p_value)]

    def _detector(self, i: int, r: int) -> DetectorScore:
        return DetectorScore(
            detector=self.detectors[r].name,
            flagged=self.is_flagged[i][r],
            score=None if self.scores is None else self.scores[i][r],
            p_value=self.detector_p_values[i][r],
            p_value_at_floor=self.is_at_floor[i][r],
            threshold=None if self.thresholds is None else self.thresholds[r],
        )


def judge(measured: Measurements, bundle: Bundle, alpha: float) -> Judged:
    """The verdicts of N images, and the flags that explain them.

    The verdict is the fused p-value's alone, p <= alpha in whole ranks. K detectors at alpha fire on up to K alpha of
    clean images, so a flag is not a verdict.
    """
    calibration = bundle.calibration
    n, rows = calibration.detector_scores.shape[1], calibration.rows
    ranks = np.rint(measured.p_values * (n + 1))  # (N, K)
    return Judged(
        bundle=bundle,
        measured=measured,
        alpha=alpha,
        is_adversarial=rejects(measured.fused_p_value, rows.of_labels(measured.labels), rows.sizes, alpha),
        is_flagged=ranks <= alpha_rank(alpha, n),
        is_at_floor=ranks == 1,
    )


def flag_of(entry: DetectorEntry, p_value: float) -> Flag:
    """A detector that fired, said for people; the p-value as it is shown."""
    return Flag(
        reason=entry.reason,
        detector=entry.name,
        message=f"{entry.meaning} than in {100 * (1 - p_value):.4g} % of clean images",
        p_value=p_value,
    )


def flag_of_history(p_value: float) -> Flag:
    """An image that the query history takes for a step of a search; the p-value as it is shown."""
    return Flag(
        reason=FlagReason.NEAR_DUPLICATE_QUERIES,
        detector="history",
        message=f"belongs to images that look more like a search than {100 * (1 - p_value):.4g} % of harmless ones",
        p_value=p_value,
    )


@lru_cache(maxsize=65536)  # p-values are ranks: there are n + 1 of them
def round_up(p_value: float, also: float = 1.0) -> float:
    """The next of 1, 2, 5 x 10^-k and `also`, so that a shown p-value stays valid.

    `also` is the default alpha: a p-value below it must not be shown above it, or it would contradict the verdict.

    >>> [round_up(p) for p in (1.0, 0.3, 0.2, 0.011, 0.005)]
    [1.0, 0.5, 0.2, 0.02, 0.005]
    >>> [round_up(p, 0.03) for p in (0.031, 0.03, 0.021, 0.02)]
    [0.05, 0.03, 0.03, 0.02]
    """
    exponent = math.floor(math.log10(p_value) + 1e-9)
    for exponent_up in (exponent, exponent + 1):
        for digit in (1, 2, 5):
            step = float(f"{digit}e{exponent_up}")
            if step >= p_value * (1 - 1e-9):
                return min(step, also if also >= p_value * (1 - 1e-9) else 1.0, 1.0)
    raise AssertionError(p_value)  # 1 x 10^(k+1) is above anything with exponent k


def alpha_steps(calibration: Calibration, default: float, largest: float) -> tuple[float, ...]:
    """The alphas open to callers who may not see exact p-values: 1, 2, 5 x 10^-k and the bundle's default.

    With any alpha they could find an exact p-value by bisection.
    """
    steps = {float(f"{digit}e{-k}") for k in range(1, 8) for digit in (1, 2, 5)} | {default}
    n = calibration.rows.smallest
    return tuple(sorted(step for step in steps if alpha_rank(step, n) >= 1 and step <= largest))


def check_step(alpha: float, steps: tuple[float, ...]) -> None:
    """Refuses an alpha that is none of the open ones; any will do when there are none.

    Raises:
        InvalidRequest: it is none of them.
    """
    if steps and alpha not in steps:
        raise InvalidRequest(
            f"target false-positive rate {alpha:g}: expected one of {', '.join(f'{step:g}' for step in steps)}, since "
            "exact p-values are hidden",
            field="options.target_fpr",
        )


def check_wish(wish: Wish, bundle: Bundle, mode: RevealMode, *, names_detectors: bool = True) -> None:
    """Refuses what does not exist and what the mode hides; nothing is dropped in silence.

    Raises:
        InvalidRequest: an unknown detector, a negative top_k.
        PermissionRefused: the embedding or raw scores, which the mode hides; any detector, where none is named.
    """
    if wish.detectors and not names_detectors:  # known or not: the answer would tell
        raise PermissionRefused("this server returns no rows of detectors; leave the option out")
    known = [entry.name for entry in bundle.manifest.detectors]
    for name in wish.detectors:
        if name not in known:
            raise InvalidRequest(
                f"unknown detector {name[:64]!r}; this bundle has {', '.join(known)}",
                field="options.detectors",
            )
    if wish.top_k < 0:
        raise InvalidRequest(f"expected top_k of 0 (all) or more, got {wish.top_k}", field="options.top_k")
    if mode is not RevealMode.SCORES and (wish.embedding or wish.raw_scores):
        what = "embedding" if wish.embedding else "raw scores"
        raise PermissionRefused(f"this server does not return the {what} (reveal mode {mode}); leave the option out")


def reveal(judged: Judged, mode: RevealMode, wish: Wish) -> Shown:
    """Hides what a caller may not see or did not ask for; every API goes through here."""
    bundle, measured = judged.bundle, judged.measured
    if mode is RevealMode.DECISION:
        top = measured.probabilities.argmax(axis=1)[:, None]  # (N, 1)
        return _shown(judged, classes=top, probabilities=None, rows=[], mode=mode, wish=Wish())
    exact = mode is RevealMode.SCORES
    order = np.argsort(-measured.probabilities, axis=1, kind="stable")[:, : wish.top_k or None]  # (N, classes shown)
    probabilities = np.take_along_axis(measured.probabilities, order, axis=1)
    entries = bundle.manifest.detectors
    return _shown(
        judged,
        classes=order,
        probabilities=probabilities if exact else np.round(probabilities, 3),
        rows=[k for k, entry in enumerate(entries) if not wish.detectors or entry.name in wish.detectors],
        mode=mode,
        wish=wish,
    )


def _shown(
    judged: Judged,
    *,
    classes: NDArray[np.int64],
    probabilities: Float64s | None,
    rows: list[int],
    mode: RevealMode,
    wish: Wish,
) -> Shown:
    bundle, measured = judged.bundle, judged.measured
    exact = mode is RevealMode.SCORES
    raw = exact and wish.raw_scores
    also = 0.0 if exact else bundle.manifest.default_alpha  # 0: nothing is rounded
    return Shown(
        class_names=bundle.manifest.class_names,
        alpha=judged.alpha,
        classes=classes.tolist(),
        probabilities=None if probabilities is None else probabilities.tolist(),
        is_adversarial=judged.is_adversarial.tolist(),
        p_values=None if mode is RevealMode.DECISION else _shown_p(measured.fused_p_value, also=also),
        detectors=[bundle.manifest.detectors[k] for k in rows],
        is_flagged=judged.is_flagged[:, rows].tolist(),
        is_at_floor=judged.is_at_floor[:, rows].tolist(),
        detector_p_values=[_shown_p(row, also=also) for row in measured.p_values[:, rows]],
        scores=measured.outputs.scores[:, rows].tolist() if raw else None,
        thresholds=[bundle.calibration.threshold(k, judged.alpha) for k in rows] if raw else None,
        embeddings=measured.outputs.embedding.tolist() if exact and wish.embedding else None,
    )


def _shown_p(p_values: Float64s, *, also: float) -> list[float]:
    values: list[float] = p_values.tolist()
    return [round_up(value, also) for value in values] if also else values
