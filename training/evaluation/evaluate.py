"""Attacks the run's torch model and asks the bundle about the result; gradients from one, decisions from the other."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from service.detection.engine import Engine
from service.detection.types import Bytes8, Float64s
from training.attacks.rounding import from_8_bit
from training.evaluation.attack_cache import AttackCache
from training.evaluation.attacking import BATCH, Progress, attack_images
from training.evaluation.availability import judge_availability
from training.evaluation.benign import judge_classes, judge_shifts
from training.evaluation.bootstrap import draw_weights
from training.evaluation.decisions import FUSED, Decisions, decide
from training.evaluation.entries import BUDGETED, Budgets, SuiteEntry
from training.evaluation.examples import typical, worst_misses
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
from training.evaluation.rounding import predict
from training.evaluation.sanity import judge_sanity
from training.evaluation.series import Series
from training.evaluation.shifts import shifts
from training.evaluation.sweep import judge_series
from training.evaluation.uniformity import judge_uniformity

__all__ = ["Evaluation", "HeldOut", "Plot", "choose_images", "evaluate"]

_SHIFTED = 2_000
"""Test images that go through every benign shift, at most."""


_SHOWN = 6
"""Images of which the page shows where the classifier looks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """The held-out images, and which of them are attacked."""

    images: Bytes8
    """(M, H, W, C)."""
    labels: NDArray[np.int64]
    """(M,)."""
    chosen: NDArray[np.int64]
    """(N,) positions of those that are attacked."""
    in_tracks: bool = False
    """Whether several images show the same object, so that they are not independent."""


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


def choose_images(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Positions of `count` images with the classes in proportion, in rising order; all when there are no more."""
    if count >= len(labels):
        return np.arange(len(labels))
    generator = np.random.default_rng(seed)
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        places[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return np.sort(np.argsort(places, kind="stable")[:count])


def evaluate(
    engine: Engine,
    model: nn.Module,
    test: HeldOut,
    suite: Sequence[SuiteEntry],
    *,
    budgets: Budgets,
    seed: int,
    progress: Progress,
    denial: Sequence[SuiteEntry] = (),
    series: Series | None = None,
    fusion: Bytes8 | None = None,
    cache: AttackCache | None = None,
) -> Evaluation:
    """Runs every attack on the chosen images and judges them all.

    Args:
        engine: the bundle.
        model: of the run that the bundle was exported from, in eval mode.
        suite: what to run, adaptive attacks too.
        budgets: for the worst case over several attacks.
        seed: of every random number; an attack's do not depend on which others run.
        progress: takes a line for people.
        denial: attacks on availability, in rising budgets.
        series: attacks at growing changes and with ever more steps, on some of the images.
        fusion: (n2, H, W, C) images of the second calibration split, to leave out one detector after the other.
        cache: of attacked images; what it holds is not made again.
    """
    progress(f"clean: {len(test.images)} images")
    every = decide(engine, test.images)
    subject = Subject(
        images=test.images[test.chosen],
        truth=test.labels[test.chosen],
        clean=every.rows(test.chosen),
        weights=draw_weights(len(test.chosen), seed),
    )
    spared = 0.0

    def attack(entry: SuiteEntry, subject: Subject = subject) -> Attacked:
        nonlocal spared
        began = time.monotonic()
        rows = None if entry.images is None else choose_images(subject.truth, entry.images, seed)
        own = subject if rows is None else subject.rows(rows)
        run = attack_images(model, own.images, own.truth, entry, seed=seed, progress=progress, cache=cache)
        decisions = decide(engine, run.images)
        spared += run.spared
        return Attacked(
            entry=entry,
            images=run.images,
            decisions=decisions,
            disagreements=_disagreements(model, run.images, decisions),
            seconds=time.monotonic() - began + run.spared,
            rows=rows,
        )

    attacked = [attack(entry) for entry in suite]
    availability = judge_availability(subject, [attack(entry) for entry in denial])
    points: tuple[SweepPoint, ...] = ()
    convergence = None
    if series:
        rows = choose_images(subject.truth, series.strength.images, seed)
        points, convergence = judge_series(series, subject, attacked, attack, rows=rows, seed=seed)
    progress("figures and intervals")
    manifest = engine.bundle.manifest
    calibration = engine.bundle.calibration
    shifted = choose_images(test.labels, _SHIFTED, seed)
    disagreements = _disagreements(model, subject.images, subject.clean) + sum(a.disagreements for a in attacked)
    results = tuple(judge_attack(subject, one, budgets) for one in attacked)
    return Evaluation(
        clean=judge_clean(
            every,
            test.labels,
            draw_weights(len(test.images), seed),
            alpha=manifest.default_alpha,
            disagreements=disagreements,
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
        availability=availability,
        uniformity=judge_uniformity(every, calibration),
        left_out=() if fusion is None else judge_left_out(engine, fusion, every, subject, attacked, seed=seed),
        sweep=points,
        convergence=convergence,
        sanity=judge_sanity(engine, model, subject, results, points, seed=seed),
        misses=worst_misses(subject, attacked, manifest.class_names, manifest.default_alpha),
        looking=looking(model, subject, attacked, manifest.class_names, choose_images(subject.truth, _SHOWN, seed)),
        clean_scores=subject.clean.scores[FUSED],
        clean_p=subject.clean.p_values[FUSED],
        plots=tuple(_plot(subject, one, manifest.class_names) for one in attacked),
        spared=spared,
    )


def _by_knowledge(attacked: Sequence[Attacked]) -> list[list[Attacked]]:
    """The attacks that see the classifier alone, where there are any, then all where there are others.

    Those of a kind without a budget are not among them.
    """
    every = [one for one in attacked if one.entry.norm in BUDGETED]
    blind = [one for one in every if not one.entry.is_adaptive]
    return [blind, every] if 0 < len(blind) < len(every) else [every]


def _disagreements(model: nn.Module, images: Bytes8, decisions: Decisions) -> int:
    """Images that torch and the bundle label differently."""
    device = next(model.parameters()).device
    labels = [
        predict(model, from_8_bit(images[i : i + BATCH]).to(device)).cpu().numpy() for i in range(0, len(images), BATCH)
    ]
    return int((np.concatenate(labels) != decisions.labels).sum())


def _plot(subject: Subject, attacked: Attacked, names: Sequence[str]) -> Plot:
    own = attacked.of(subject)
    return Plot(
        rows=np.arange(len(subject.truth)) if attacked.rows is None else attacked.rows,
        attacked_scores=attacked.decisions.scores[FUSED],
        attacked_p=attacked.decisions.p_values[FUSED],
        example=typical(own, attacked, names),
    )
