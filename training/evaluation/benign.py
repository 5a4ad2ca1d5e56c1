"""False alarms on clean images: under benign shifts, and class by class."""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.detection.calibration import alpha_rank
from service.detection.engine import Engine
from service.detection.types import Bools, Bytes8, Float32s
from training.evaluation.attacking import Progress
from training.evaluation.bootstrap import share_estimate
from training.evaluation.decisions import FUSED, Decisions, decide
from training.evaluation.judging import ALPHAS, supported
from training.evaluation.results import AlarmsAt, ClassAlarms, ShiftResult
from training.evaluation.shifts import Shift

__all__ = ["judge_classes", "judge_shifts"]


def judge_shifts(
    engine: Engine,
    images: Bytes8,
    labels: NDArray[np.int64],
    weights: Float32s,
    shifts: Sequence[Shift],
    *,
    seed: int,
    progress: Progress,
) -> tuple[ShiftResult, ...]:
    """What each shift does to accuracy and false alarms.

    Args:
        images: (N, H, W, C), clean.
        labels: (N,) true classes.
        weights: (R, N) of the bootstrap.
        shifts: the same images go through each.
        seed: of the noise; a shift's does not depend on which others run.
    """
    results = []
    for shift in shifts:
        progress(f"{shift.name}: {len(images)} images")
        generator = np.random.default_rng(zlib.crc32(f"{seed} {shift.name}".encode()))
        changed = decide(engine, shift.change(images, generator))
        results.append(_judge(shift, changed, labels, weights, alpha=engine.bundle.manifest.default_alpha))
    return tuple(results)


def _judge(
    shift: Shift, changed: Decisions, labels: NDArray[np.int64], weights: Float32s, *, alpha: float
) -> ShiftResult:
    every = np.ones(len(labels), bool)
    return ShiftResult(
        name=shift.name,
        title=shift.title,
        is_mild=shift.is_mild,
        accuracy=share_estimate(changed.labels == labels, every, weights),
        alarms=tuple(
            AlarmsAt(alpha=one, rate=share_estimate(changed.rejected(one), every, weights))
            for one in supported(ALPHAS, changed.smallest_row)
        ),
        loudest=_loudest(changed, alpha),
    )


def _loudest(decisions: Decisions, alpha: float) -> str | None:
    """The detector whose own p-value is at most alpha most often; None where none ever is."""
    counts = {name: int((values <= alpha).sum()) for name, values in decisions.p_values.items() if name != FUSED}
    name = max(counts, key=lambda one: counts[one])
    return name if counts[name] else None


def judge_classes(
    clean: Decisions, labels: NDArray[np.int64], names: Sequence[str], *, alpha: float
) -> tuple[ClassAlarms, ...]:
    """False alarms of each true class at alpha, in the classes' order; none where the calibration refuses alpha."""
    if alpha_rank(alpha, clean.smallest_row) < 1:
        return ()
    rejected: Bools = clean.rejected(alpha)
    right: Bools = clean.labels == labels
    return tuple(
        ClassAlarms(
            name=name,
            images=int((labels == label).sum()),
            alarms=int((rejected & (labels == label)).sum()),
            alarms_when_right=int((rejected & right & (labels == label)).sum()),
            right=int((right & (labels == label)).sum()),
        )
        for label, name in enumerate(names)
    )
