"""What each detector adds: the fused statistic without it, from scores that were measured anyway.

A bundle keeps sorted scores. The first calibration split needs no more; the second one's statistic is made of all
scores of an image together, so its images are scored again. Only attacks that saw no detector are looked at: the
others were aimed at the whole, and say nothing of how well one aimed at the rest would do.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from service.detection.calibration import Calibration
from service.detection.engine import Engine
from service.detection.rows import rejects
from service.detection.types import Bools, Bytes8, Float32s, Integers
from training.evaluation.bootstrap import draw_weights, share_estimate
from training.evaluation.decisions import FUSED, Decisions, decide
from training.evaluation.judging import Attacked, Subject, supported
from training.evaluation.metrics import auroc
from training.evaluation.records import Without

__all__ = ["FOUND_AT", "judge_left_out", "without"]

FOUND_AT = 0.05
"""False-positive rate at which found attacks are counted."""

_TOLERANCE = 1e-3


def without(
    calibration: Calibration, second: Float32s, labels: Integers, left_out: int | None
) -> tuple[Calibration, list[int]]:
    """The calibration of the other detectors, and their columns.

    Learned weights stay as they are. Where the other weights are all 0, the others count alike.

    Args:
        calibration: of all K detectors.
        second: (n2, K) scores of the images of the second split.
        labels: (n2,) what the bundle reads in them.
        left_out: column of the detector; None leaves out none.
    """
    kept = [column for column in range(second.shape[1]) if column != left_out]
    fusion, by_class = calibration.fusion, calibration.by_class
    if fusion.weights is not None:
        weights = fusion.weights[kept]
        fusion = dataclasses.replace(fusion, weights=weights if weights.any() else np.ones_like(weights))
    if by_class is not None:
        by_class = dataclasses.replace(by_class, predicted=labels.astype(np.int32))
    first = calibration.detector_scores[kept].T
    return Calibration.from_clean(first, second[:, kept], fusion=fusion, by_class=by_class), kept


def judge_left_out(
    engine: Engine, fusion: Bytes8, clean: Decisions, subject: Subject, attacked: Sequence[Attacked], *, seed: int
) -> tuple[Without, ...]:
    """A row for the whole bundle, then one for each detector left out.

    Args:
        engine: the bundle.
        fusion: (n2, H, W, C) images of its second calibration split.
        clean: its answers on all clean test images.
        subject: the attacked images before the attack.
        attacked: what the attacks made of them; those that knew the detectors are passed over.
        seed: of the interval's resamples.

    Returns:
        Nothing for a single detector, without such attacks, or where these are not the images that the bundle was
        calibrated on.
    """
    calibration = engine.bundle.calibration
    blind = [one for one in attacked if not one.entry.is_adaptive]
    columns = len(calibration.detector_scores)
    if columns < 2 or not blind or len(fusion) != calibration.fused_scores.size:
        return ()
    answers = decide(engine, fusion)
    second, labels = _scores(answers), answers.labels
    whole, _ = without(calibration, second, labels, None)
    if not np.allclose(whole.fused_scores, calibration.fused_scores, rtol=_TOLERANCE, atol=_TOLERANCE):
        return ()
    names = [entry.name for entry in engine.bundle.manifest.detectors]
    weights, alpha = draw_weights(len(clean.labels), seed), engine.bundle.manifest.default_alpha
    rows = []
    for left_out in (None, *range(columns)):
        rest, kept = without(calibration, second, labels, left_out)
        alarms = _rejected(rest, _scores(clean)[:, kept], clean.labels, alpha)
        every = np.ones(len(alarms), bool)
        figures = [_figures(rest, kept, subject, one) for one in blind]
        worst = min(zip(figures, blind, strict=True), key=lambda pair: pair[0][0])
        rows.append(
            Without(
                detector=None if left_out is None else names[left_out],
                mean_auroc_all=_mean([figure[0] for figure in figures]),
                mean_auroc_successful=_mean([figure[1] for figure in figures]),
                worst_attack=worst[1].entry.title,
                worst_auroc=worst[0][0],
                found=_mean([figure[2] for figure in figures]),
                false_positive_rate=share_estimate(alarms, every, weights)
                if supported((alpha,), rest.rows.smallest)
                else None,
            )
        )
    return tuple(rows)


def _figures(
    rest: Calibration, kept: list[int], subject: Subject, one: Attacked
) -> tuple[float, float | None, float | None]:
    """AUROC over all and over the successful attacked images, and the share of the latter that is found."""
    own = one.of(subject)
    before, after = (_scores(decisions)[:, kept] for decisions in (own.clean, one.decisions))
    clean = rest.suspicion(before, own.clean.labels)
    attacked = rest.suspicion(after, one.decisions.labels)
    right = own.right
    successful = right & (one.decisions.labels != own.truth)
    of_all = auroc(attacked, clean)
    assert of_all is not None
    found = None
    if successful.any() and supported((FOUND_AT,), rest.rows.smallest):
        found = float(_rejected(rest, after, one.decisions.labels, FOUND_AT)[successful].mean())
    return of_all, auroc(attacked[successful], clean[right]), found


def _rejected(calibration: Calibration, scores: Float32s, labels: Integers, alpha: float) -> Bools:
    rows = calibration.rows
    return rejects(calibration.fused_p_values(scores, labels), rows.of_labels(labels), rows.sizes, alpha)


def _scores(decisions: Decisions) -> Float32s:
    """(N, K), in the order of the detectors."""
    columns = [values for name, values in decisions.scores.items() if name != FUSED]
    return np.stack(columns, axis=1).astype(np.float32)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
