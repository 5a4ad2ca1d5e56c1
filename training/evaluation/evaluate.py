"""Judges what attacks made of a bundle's images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from service.detection.engine import Engine
from service.detection.types import Bytes8, Float64s
from training.evaluation.attacking import Progress
from training.evaluation.benign import judge_classes, judge_shifts
from training.evaluation.bootstrap import draw_weights
from training.evaluation.decisions import FUSED
from training.evaluation.entries import BUDGETED, Budgets
from training.evaluation.examples import typical, worst_misses
from training.evaluation.held_out import HeldOut, choose_images
from training.evaluation.judging import (
    ALPHAS,
    Attacked,
    Subject,
    judge_attack,
    judge_clean,
    judge_false_positives,
    judge_union,
)
from training.evaluation.left_out import judge_left_out
from training.evaluation.looking import Looking, looking
from training.evaluation.pictures import Example
from training.evaluation.records import Check, Convergence, SweepPoint, Uniformity, Without
from training.evaluation.results import (
    AttackResult,
    AvailabilityAt,
    ClassAlarms,
    CleanResult,
    FalsePositives,
    ShiftResult,
    UnionResult,
)
from training.evaluation.sanity import judge_sanity
from training.evaluation.shifts import shifts
from training.evaluation.suite_run import SuiteRun, disagreements
from training.evaluation.uniformity import judge_uniformity

__all__ = ["Evaluation", "Plot", "judge_run"]

_SHIFTED = 2_000
"""Test images that go through every benign shift, at most."""


_SHOWN = 6
"""Images of which the page shows where the classifier looks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plot:
    """What the page draws of one attack; too large for report.json."""

    attacked_scores: Float64s
    """(M,) fused statistic."""
    attacked_p: Float64s
    """(M,) fused p-value."""
    rows: NDArray[np.int64]
    """(M,) which of the chosen images it took."""
    example: Example


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Everything that was measured."""

    clean: CleanResult
    false_positives: tuple[FalsePositives, ...]
    classes: tuple[ClassAlarms, ...]
    shifts: tuple[ShiftResult, ...]
    attacks: tuple[AttackResult, ...]
    unions: tuple[UnionResult, ...]
    availability: tuple[AvailabilityAt, ...]
    uniformity: tuple[Uniformity, ...]
    left_out: tuple[Without, ...]
    sweep: tuple[SweepPoint, ...]
    convergence: Convergence | None
    sanity: tuple[Check, ...]
    misses: tuple[Example, ...]
    """The least suspicious images that attacks which knew the detectors got wrong and accepted."""
    looking: Looking | None
    """Where the classifier looks; None for one without such maps."""
    clean_scores: Float64s
    """(N,) fused statistic of the chosen images, unattacked."""
    clean_p: Float64s
    """(N,)."""
    plots: tuple[Plot, ...]
    """One an attack."""
    spared: float
    """Seconds of attacks that earlier calls had spent."""


def judge_run(
    engine: Engine,
    model: nn.Module,
    test: HeldOut,
    ran: SuiteRun,
    *,
    budgets: Budgets,
    seed: int,
    progress: Progress,
    fusion: Bytes8 | None = None,
) -> Evaluation:
    """Judges what a suite made of the chosen images.

    Args:
        engine: the bundle.
        model: of the run that the bundle was exported from, in eval mode.
        test: the images that the suite ran on.
        ran: by `run_suite`.
        budgets: for the worst case over several attacks.
        seed: of every random number.
        progress: takes a line for people.
        fusion: (n2, H, W, C) images of the second calibration split, to leave out one detector after the other.
    """
    every, subject, attacked = ran.every, ran.subject, ran.attacked
    progress("figures and intervals")
    manifest = engine.bundle.manifest
    calibration = engine.bundle.calibration
    shifted = choose_images(test.labels, _SHIFTED, seed)
    differing = disagreements(model, subject.images, subject.clean) + sum(a.disagreements for a in attacked)
    results = tuple(judge_attack(subject, one, budgets) for one in attacked)
    return Evaluation(
        clean=judge_clean(
            every,
            test.labels,
            draw_weights(len(test.images), seed),
            alpha=manifest.default_alpha,
            disagreements=differing,
            compared=len(test.chosen) + sum(len(one.images) for one in attacked),
        ),
        false_positives=tuple(judge_false_positives(every, alpha) for alpha in ALPHAS),
        classes=judge_classes(every, test.labels, manifest.class_names, alpha=manifest.default_alpha),
        shifts=judge_shifts(
            engine,
            test.images[shifted],
            test.labels[shifted],
            draw_weights(len(shifted), seed),
            shifts(budgets),
            seed=seed,
            progress=progress,
        ),
        attacks=results,
        unions=tuple(
            judge_union(subject, among, norm, budgets.of(norm))
            for among in _by_knowledge(attacked)
            for norm in ("linf", "l2")
        ),
        availability=ran.availability,
        uniformity=judge_uniformity(every, calibration),
        left_out=() if fusion is None else judge_left_out(engine, fusion, every, subject, attacked, seed=seed),
        sweep=ran.sweep,
        convergence=ran.convergence,
        sanity=judge_sanity(engine, model, subject, results, ran.sweep, seed=seed),
        misses=worst_misses(subject, attacked, manifest.class_names, manifest.default_alpha),
        looking=looking(model, subject, attacked, manifest.class_names, choose_images(subject.truth, _SHOWN, seed)),
        clean_scores=subject.clean.scores[FUSED],
        clean_p=subject.clean.p_values[FUSED],
        plots=tuple(_plot(subject, one, manifest.class_names) for one in attacked),
        spared=ran.spared,
    )


def _by_knowledge(attacked: Sequence[Attacked]) -> list[list[Attacked]]:
    """The attacks that see the classifier alone, where there are any, then all where there are others.

    Those of a kind without a budget are not among them.
    """
    every = [one for one in attacked if one.entry.norm in BUDGETED]
    blind = [one for one in every if not one.entry.is_adaptive]
    return [blind, every] if 0 < len(blind) < len(every) else [every]


def _plot(subject: Subject, attacked: Attacked, names: Sequence[str]) -> Plot:
    own = attacked.of(subject)
    return Plot(
        rows=np.arange(len(subject.truth)) if attacked.rows is None else attacked.rows,
        attacked_scores=attacked.decisions.scores[FUSED],
        attacked_p=attacked.decisions.p_values[FUSED],
        example=typical(own, attacked, names),
    )
