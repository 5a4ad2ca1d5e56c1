"""Measurements and an alpha to what is said of an image, and how much of it a caller may see."""

import dataclasses
import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np

from service.detection.bundle import Bundle
from service.detection.calibration import Calibration, alpha_rank
from service.detection.types import ClassScore, Detection, DetectorScore, Flag, Measurements, Verdict
from service.errors import InvalidRequest, PermissionRefused

__all__ = ["RevealMode", "Wish", "alpha_steps", "check_step", "check_wish", "judge", "reveal", "round_up"]


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


def judge(measured: Measurements, row: int, bundle: Bundle, alpha: float) -> Detection:
    """Everything there is to say of one image at one alpha, with nothing hidden.

    The verdict is the fused p-value's alone. Flags explain: K detectors at alpha fire on up to K alpha of clean
    images, so a flag is not a verdict.
    """
    probabilities = measured.probabilities[row]
    names = bundle.manifest.class_names
    order = np.argsort(-probabilities, kind="stable").tolist()
    values = probabilities.tolist()
    classes = tuple(ClassScore(index=i, label=names[i], probability=values[i]) for i in order)  # (L,), likeliest first
    detectors = tuple(_detector_score(measured, row, k, bundle, alpha) for k in range(len(bundle.manifest.detectors)))
    p_value = float(measured.fused_p_value[row])
    return Detection(
        top=classes[0],
        classes=classes,
        verdict=Verdict.ADVERSARIAL if _fires(p_value, bundle.calibration.fused_scores.size, alpha) else Verdict.CLEAN,
        p_value=p_value,
        alpha=alpha,
        detectors=detectors,
        flags=tuple(_flag(bundle, k, score.p_value) for k, score in enumerate(detectors) if score.flagged),
        embedding=tuple(measured.outputs.embedding[row].tolist()),
    )


def _fires(p_value: float, n: int, alpha: float) -> bool:
    """Whether p <= alpha, in whole ranks."""
    return round(p_value * (n + 1)) <= alpha_rank(alpha, n)


def _detector_score(measured: Measurements, row: int, k: int, bundle: Bundle, alpha: float) -> DetectorScore:
    n = bundle.calibration.detector_scores.shape[1]
    p_value = float(measured.p_values[row, k])
    return DetectorScore(
        detector=bundle.manifest.detectors[k].name,
        flagged=_fires(p_value, n, alpha),
        score=float(measured.outputs.scores[row, k]),
        p_value=p_value,
        p_value_at_floor=round(p_value * (n + 1)) == 1,
        threshold=bundle.calibration.threshold(k, alpha),
    )


def _flag(bundle: Bundle, k: int, p_value: float | None) -> Flag:
    entry = bundle.manifest.detectors[k]
    share = "most" if p_value is None else f"{100 * (1 - p_value):.4g} %"
    return Flag(
        reason=entry.reason,
        detector=entry.name,
        message=f"{entry.meaning} than in {share} of clean images",
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
    n = calibration.fused_scores.size
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


def check_wish(wish: Wish, bundle: Bundle, mode: RevealMode) -> None:
    """Refuses what does not exist and what the mode hides; nothing is dropped in silence.

    Raises:
        InvalidRequest: an unknown detector, a negative top_k.
        PermissionRefused: the embedding or raw scores, which the mode hides.
    """
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


def reveal(detection: Detection, bundle: Bundle, mode: RevealMode, wish: Wish) -> Detection:
    """Hides what a caller may not see or did not ask for; every API goes through here."""
    if mode is RevealMode.DECISION:
        top = dataclasses.replace(detection.top, probability=None)
        return dataclasses.replace(
            detection, top=top, classes=(top,), p_value=None, detectors=(), flags=(), embedding=()
        )
    exact = mode is RevealMode.SCORES
    classes = detection.classes[: wish.top_k or None]
    if not exact:
        classes = tuple(
            ClassScore(index=c.index, label=c.label, probability=round(c.probability or 0.0, 3)) for c in classes
        )
    rows = [k for k, score in enumerate(detection.detectors) if not wish.detectors or score.detector in wish.detectors]
    also = 0.0 if exact else bundle.manifest.default_alpha  # 0: nothing is rounded
    scores = tuple(_shown_score(detection.detectors[k], also=also, raw=exact and wish.raw_scores) for k in rows)
    return dataclasses.replace(
        detection,
        top=classes[0],
        classes=classes,
        p_value=_shown_p(detection.p_value, also=also),
        detectors=scores,
        flags=tuple(_flag(bundle, k, s.p_value) for k, s in zip(rows, scores, strict=True) if s.flagged),
        embedding=detection.embedding if exact and wish.embedding else (),
    )


def _shown_score(score: DetectorScore, *, also: float, raw: bool) -> DetectorScore:
    return DetectorScore(
        detector=score.detector,
        flagged=score.flagged,
        score=score.score if raw else None,
        p_value=_shown_p(score.p_value, also=also),
        p_value_at_floor=score.p_value_at_floor,
        threshold=score.threshold if raw else None,
    )


def _shown_p(p_value: float | None, *, also: float) -> float | None:
    return p_value if not also or p_value is None else round_up(p_value, also)
