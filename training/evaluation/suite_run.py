"""Attacks the run's torch model and asks the bundle about the result; gradients from one, decisions from the other."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from service.detection.engine import Engine
from service.detection.types import Bytes8
from training.attacks.rounding import from_8_bit
from training.evaluation.attack_cache import AttackCache
from training.evaluation.attacking import BATCH, Progress, attack_images
from training.evaluation.availability import judge_availability
from training.evaluation.bootstrap import draw_weights
from training.evaluation.decisions import Decisions, decide
from training.evaluation.entries import SuiteEntry
from training.evaluation.held_out import HeldOut, choose_images
from training.evaluation.judging import Attacked, Subject
from training.evaluation.records import Convergence, SweepPoint
from training.evaluation.results import AvailabilityAt
from training.evaluation.rounding import predict
from training.evaluation.series import Series
from training.evaluation.sweep import judge_series
from training.processes import ALONE, Processes

__all__ = ["SuiteRun", "disagreements", "run_suite"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SuiteRun:
    """What the attacks of an evaluation made."""

    every: Decisions
    """On all M test images, unattacked."""
    subject: Subject
    """The chosen images."""
    attacked: tuple[Attacked, ...]
    """By every attack of the suite."""
    availability: tuple[AvailabilityAt, ...]
    sweep: tuple[SweepPoint, ...]
    convergence: Convergence | None
    spared: float
    """Seconds of attacks that earlier calls had spent."""


def run_suite(
    engine: Engine,
    model: nn.Module,
    test: HeldOut,
    suite: Sequence[SuiteEntry],
    *,
    seed: int,
    progress: Progress,
    denial: Sequence[SuiteEntry] = (),
    series: Series | None = None,
    cache: AttackCache | None = None,
    processes: Processes = ALONE,
) -> SuiteRun:
    """Runs every attack on the chosen images.

    Args:
        engine: the bundle.
        model: of the run that the bundle was exported from, in eval mode.
        test: the images.
        suite: what to run, adaptive attacks too.
        seed: of every random number; an attack's do not depend on which others run.
        progress: takes a line for people.
        denial: attacks on availability, in rising budgets.
        series: attacks at growing changes and with ever more steps, on some of the images.
        cache: of attacked images; what it holds is not made again.
        processes: all of them call this and share the attacks; the first one asks the bundle.

    Raises:
        SetupError: the processes would not attack the same images of the same network.
    """
    progress(f"clean: {len(test.images)} images")
    every = processes.decided(lambda: decide(engine, test.images))
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
        run = attack_images(
            model, own.images, own.truth, entry, seed=seed, progress=progress, cache=cache, processes=processes
        )
        decisions = processes.decided(lambda: decide(engine, run.images))
        spared += run.spared
        return Attacked(
            entry=entry,
            images=run.images,
            decisions=decisions,
            disagreements=disagreements(model, run.images, decisions),
            seconds=time.monotonic() - began + run.spared,
            rows=rows,
        )

    attacked = tuple(attack(entry) for entry in suite)
    availability = judge_availability(subject, [attack(entry) for entry in denial])
    points: tuple[SweepPoint, ...] = ()
    convergence = None
    if series:
        rows = choose_images(subject.truth, series.strength.images, seed)
        points, convergence = judge_series(series, subject, attacked, attack, rows=rows, seed=seed)
    return SuiteRun(
        every=every,
        subject=subject,
        attacked=attacked,
        availability=availability,
        sweep=points,
        convergence=convergence,
        spared=spared,
    )


def disagreements(model: nn.Module, images: Bytes8, decisions: Decisions) -> int:
    """Images that torch and the bundle label differently."""
    device = next(model.parameters()).device
    labels = [
        predict(model, from_8_bit(images[i : i + BATCH]).to(device)).cpu().numpy() for i in range(0, len(images), BATCH)
    ]
    return int((np.concatenate(labels) != decisions.labels).sum())
