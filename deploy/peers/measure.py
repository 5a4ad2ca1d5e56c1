"""The figures of one detector: on clean images, under attacks that do not know it, and under one that does."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.peers.contestants import Contestant
from service.detection.calibration import alpha_rank, images_needed, p_values
from service.detection.types import Bytes8, Float64s
from service.errors import SetupError
from training.evaluation.bootstrap import Estimate, draw_weights
from training.evaluation.decisions import FUSED, Decisions
from training.evaluation.held_out import HeldOut
from training.evaluation.judging import Attacked, Subject, judge_attack, judge_false_positives, judge_union
from training.evaluation.results import AttackResult, RateAt, UnionResult
from training.evaluation.suite import Budgets, SuiteEntry

__all__ = ["ALPHA", "Labelled", "figures", "success_figures"]

ALPHA = 0.05
"""The false-positive rate that every detector's threshold promises."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """What one attack made of the chosen images."""

    entry: SuiteEntry
    images: Bytes8
    """(N, H, W, C)."""
    labels: np.ndarray
    """(N,) what the bundle reads in them."""


class _Ranked:
    """A detector with its p-values: its score ranked among those of clean images that it was not fitted on."""

    def __init__(self, contestant: Contestant, fresh: Bytes8) -> None:
        if alpha_rank(ALPHA, len(fresh)) < 1:
            raise SetupError(
                f"data.fusion: expected at least {images_needed(ALPHA)} images for thresholds at {ALPHA:g}, got "
                f"{len(fresh)}; train with more of them"
            )
        self._score = contestant.score
        self._clean = np.sort(_pessimistic(self._score(fresh)))

    def decisions(self, images: Bytes8, labels: np.ndarray) -> Decisions:
        """What the detector says of N images with the bundle's labels, as if it were the whole bundle."""
        scores = self._score(images)
        return Decisions(
            labels=labels,
            scores={FUSED: scores},
            p_values={FUSED: p_values(scores, self._clean)},
            ranked_in=np.zeros(len(scores), np.int64),
            row_sizes=np.array([self._clean.size]),
        )

    def attacked(self, one: Labelled) -> Attacked:
        """The same of what an attack made."""
        decisions = self.decisions(one.images, one.labels)
        return Attacked(entry=one.entry, images=one.images, decisions=decisions, disagreements=0, seconds=0.0)


def figures(
    contestant: Contestant,
    test: HeldOut,
    labels: np.ndarray,
    fresh: Bytes8,
    blind: Sequence[Labelled],
    *,
    attack: Callable[[], Labelled] | None,
    budgets: Budgets,
    seed: int,
) -> dict[str, float]:
    """Flat metrics; a figure that no image supports is left out.

    Args:
        contestant: the detector.
        test: the test images.
        labels: (M,) what the bundle reads in them.
        fresh: (n, H, W, C) clean images that thresholds are taken from; no detector was fitted on them.
        blind: the attacks that do not know the detector, on the chosen images.
        attack: makes the attack that does; None for a detector without a gradient.
        budgets: of the threat model.
        seed: of the bootstrap.

    Raises:
        SetupError: there are too few fresh images.
    """
    ranked = _Ranked(contestant, fresh)
    began = time.process_time()
    clean = ranked.decisions(test.images, labels)
    took = time.process_time() - began
    subject = Subject(
        images=test.images[test.chosen],
        truth=test.labels[test.chosen],
        clean=clean.rows(test.chosen),
        weights=draw_weights(len(test.chosen), seed),
    )

    attacked = [ranked.attacked(one) for one in blind]
    results = [judge_attack(subject, one, budgets) for one in attacked]
    alarms = judge_false_positives(clean, ALPHA)
    found: dict[str, float | None] = {
        f"false_positive_rate_at_{ALPHA:g}": alarms.rate,
        "ms_an_image": 1_000 * took / len(test.images),
        **_spread(results),
    }
    for result in results:
        found |= _of_attack(result)
    if attack is not None:
        own = ranked.attacked(attack())
        norm = own.entry.norm
        found |= _of_own_attack(judge_attack(subject, own, budgets))
        found |= _of_union(judge_union(subject, [*attacked, own], norm, budgets.of(norm)))
    return {key: value for key, value in found.items() if value is not None}


def success_figures(blind: Sequence[Labelled], test: HeldOut, labels: np.ndarray) -> dict[str, float]:
    """How many of the images that were read rightly each attack got misread, and the share of all; detectors aside."""
    truth = test.labels[test.chosen]
    right = labels[test.chosen] == truth
    found = {"right": float(right.sum())}
    for one in blind:
        wrong = one.labels != truth
        found[f"{one.entry.name}_successful"] = float((right & wrong).sum())
        found[f"{one.entry.name}_misread"] = float(wrong.mean())
    return found


def _spread(results: Sequence[AttackResult]) -> Mapping[str, float | None]:
    """Mean and lowest AUROC over the attacks, when every one of them succeeded somewhere."""
    areas = [area for result in results if (area := result.aurocs[0].successful.value) is not None]
    if len(areas) < len(results):
        return {}
    return {"mean_auroc": float(np.mean(areas)), "worst_auroc": min(areas)}


def _of_attack(result: AttackResult) -> dict[str, float | None]:
    area = result.aurocs[0]
    return {
        **_with_interval(f"{result.name}_auroc", area.successful),
        **_with_interval(f"{result.name}_auroc_all", area.all),
        f"{result.name}_tpr_at_{ALPHA:g}": _at_alpha(result.detected).successful.value,
    }


def _of_own_attack(result: AttackResult) -> dict[str, float | None]:
    return {
        **_with_interval(f"adaptive_accepted_and_wrong_at_{ALPHA:g}", _at_alpha(result.accepted_and_wrong).all),
        "adaptive_success_rate": result.success_rate.value,
        "adaptive_auroc": result.aurocs[0].successful.value,
    }


def _of_union(result: UnionResult) -> dict[str, float | None]:
    """Robust accuracy with rejection under all attacks together, its own among them."""
    rejection = next(one for one in result.rejection if one.alpha == ALPHA)
    return _with_interval(f"robust_accuracy_with_rejection_at_{ALPHA:g}", rejection.robust_accuracy)


def _at_alpha(rates: Sequence[RateAt]) -> RateAt:
    return next(rate for rate in rates if rate.alpha == ALPHA)


def _with_interval(name: str, estimate: Estimate) -> dict[str, float | None]:
    ends = estimate.interval
    return {
        name: estimate.value,
        f"{name}_low": ends.low if ends else None,
        f"{name}_high": ends.high if ends else None,
    }


def _pessimistic(scores: Float64s) -> Float64s:
    """A clean score that is not finite is the largest, as everywhere."""
    return np.where(np.isfinite(scores), scores, np.inf)
