"""Attacks the run's torch model and asks the bundle about the result; gradients from one, decisions from the other."""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.detection.engine import Engine
from service.detection.types import Bytes8, Float64s
from training.attacks.rounding import from_8_bit, to_8_bit
from training.evaluation.bootstrap import draw_weights
from training.evaluation.decisions import FUSED, Decisions, decide
from training.evaluation.judging import (
    ALPHAS,
    Attacked,
    Subject,
    judge_attack,
    judge_clean,
    judge_false_positives,
    judge_union,
)
from training.evaluation.pictures import Example
from training.evaluation.results import AttackResult, CleanResult, FalsePositives, UnionResult
from training.evaluation.rounding import predict, to_8_bit_fooling
from training.evaluation.suite import Budgets, SuiteEntry

__all__ = ["Evaluation", "HeldOut", "Plot", "choose_images", "evaluate"]

_BATCH = 128

Progress = Callable[[str], None]


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
    """(N,) fused statistic."""
    attacked_p: Float64s
    """(N,) fused p-value."""
    example: Example


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Everything that was measured."""

    clean: CleanResult
    false_positives: tuple[FalsePositives, ...]
    attacks: tuple[AttackResult, ...]
    unions: tuple[UnionResult, ...]
    clean_scores: Float64s
    """(N,) fused statistic of the chosen images, unattacked."""
    clean_p: Float64s
    """(N,)."""
    plots: tuple[Plot, ...]
    """One an attack."""


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
) -> Evaluation:
    """Runs every attack on the chosen images and judges them all.

    Args:
        engine: the bundle.
        model: of the run that the bundle was exported from, in eval mode.
        suite: what to run.
        budgets: for the worst case over several attacks.
        seed: of every random number; an attack's do not depend on which others run.
        progress: takes a line for people.
    """
    progress(f"clean: {len(test.images)} images")
    every = decide(engine, test.images)
    subject = Subject(
        images=test.images[test.chosen],
        truth=test.labels[test.chosen],
        clean=every.rows(test.chosen),
        weights=draw_weights(len(test.chosen), seed),
    )
    attacked = [_attack(engine, model, subject, entry, seed=seed, progress=progress) for entry in suite]
    progress("figures and intervals")
    disagreements = _disagreements(model, subject.images, subject.clean) + sum(a.disagreements for a in attacked)
    return Evaluation(
        clean=judge_clean(
            every,
            test.labels,
            draw_weights(len(test.images), seed),
            alpha=engine.bundle.manifest.default_alpha,
            disagreements=disagreements,
            compared=len(test.chosen) * (1 + len(attacked)),
        ),
        false_positives=tuple(judge_false_positives(every, alpha) for alpha in ALPHAS),
        attacks=tuple(judge_attack(subject, one, budgets) for one in attacked),
        unions=tuple(judge_union(subject, attacked, norm, budgets.of(norm)) for norm in ("linf", "l2")),
        clean_scores=subject.clean.scores[FUSED],
        clean_p=subject.clean.p_values[FUSED],
        plots=tuple(_plot(subject, one, engine.bundle.manifest.class_names) for one in attacked),
    )


def _attack(
    engine: Engine, model: nn.Module, subject: Subject, entry: SuiteEntry, *, seed: int, progress: Progress
) -> Attacked:
    started = time.monotonic()
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {entry.name}".encode()))
    parts = []
    for start in range(0, len(subject.images), _BATCH):
        progress(f"{entry.name}: {start} of {len(subject.images)}")
        rows = slice(start, start + _BATCH)
        labels = torch.from_numpy(subject.truth[rows])
        parts.append(_attack_batch(model, from_8_bit(subject.images[rows]), labels, entry, generator))
    images = np.concatenate(parts)
    decisions = decide(engine, images)
    return Attacked(
        entry=entry,
        images=images,
        decisions=decisions,
        disagreements=_disagreements(model, images, decisions),
        seconds=time.monotonic() - started,
    )


def _attack_batch(
    model: nn.Module, clean: Tensor, labels: Tensor, entry: SuiteEntry, generator: torch.Generator
) -> Bytes8:
    """Attacked images of 8 bits, (N, H, W, C)."""
    device = next(model.parameters()).device
    clean, labels = clean.to(device), labels.to(device)
    attacked = entry.attack(model, clean, labels, generator)
    if entry.eps is None:
        rounded = to_8_bit_fooling(model, attacked, clean, labels)
    else:
        rounded = to_8_bit(attacked, clean, entry.norm, entry.eps)
    return np.ascontiguousarray(rounded.cpu().numpy())


def _disagreements(model: nn.Module, images: Bytes8, decisions: Decisions) -> int:
    """Images that torch and the bundle label differently."""
    device = next(model.parameters()).device
    labels = [
        predict(model, from_8_bit(images[i : i + _BATCH]).to(device)).cpu().numpy()
        for i in range(0, len(images), _BATCH)
    ]
    return int((np.concatenate(labels) != decisions.labels).sum())


def _plot(subject: Subject, attacked: Attacked, names: Sequence[str]) -> Plot:
    row = _typical(subject, attacked)
    clean, after = subject.clean, attacked.decisions
    return Plot(
        attacked_scores=after.scores[FUSED],
        attacked_p=after.p_values[FUSED],
        example=Example(
            attack=attacked.entry.title,
            clean=subject.images[row],
            attacked=attacked.images[row],
            truth=names[subject.truth[row]],
            clean_label=names[clean.labels[row]],
            attacked_label=names[after.labels[row]],
            clean_p=float(clean.p_values[FUSED][row]),
            attacked_p=float(after.p_values[FUSED][row]),
            succeeded=bool(subject.right[row] and after.labels[row] != subject.truth[row]),
        ),
    )


def _typical(subject: Subject, attacked: Attacked) -> int:
    """The successful attack in the middle by suspicion, so that no picture is picked for its looks; else of all."""
    successful = np.flatnonzero(subject.right & (attacked.decisions.labels != subject.truth))
    among = successful if successful.size else np.arange(len(subject.truth))
    order = np.argsort(attacked.decisions.scores[FUSED][among], kind="stable")
    return int(among[order[len(order) // 2]])
