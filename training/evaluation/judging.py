"""Decisions on clean and attacked images to the figures of a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.detection.calibration import alpha_rank, images_needed
from service.detection.types import Bools, Bytes8, Float32s, Float64s
from training.evaluation.bootstrap import Estimate, auroc_estimate, share_estimate
from training.evaluation.decisions import FUSED, Decisions
from training.evaluation.entries import BUDGETED, Budgets, SuiteEntry
from training.evaluation.metrics import binomial_range, partial_auroc, promised_range, tpr_at_fpr
from training.evaluation.results import (
    AttackResult,
    CleanResult,
    DetectorAuroc,
    FalsePositives,
    RateAt,
    Rejection,
    UnionResult,
)

__all__ = [
    "ALPHAS",
    "Attacked",
    "Subject",
    "balanced_accuracy",
    "breaking_change",
    "judge_attack",
    "judge_clean",
    "judge_false_positives",
    "judge_union",
]

ALPHAS = (0.001, 0.005, 0.01, 0.05)
"""False-positive rates that are looked at; the calibration may refuse the smallest."""

BROKEN = 0.1
"""Share of images read rightly below which a classifier counts as broken."""

PARTIAL = (0.01, 0.05, 0.1, 0.2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """The images that were attacked, before any attack."""

    images: Bytes8
    """(N, H, W, C)."""
    truth: NDArray[np.int64]
    """(N,) true classes."""
    clean: Decisions
    weights: Float32s
    """(R, N) of the bootstrap, the same for every figure."""

    @property
    def right(self) -> Bools:
        """Where the bundle is right on the unattacked image, (N,)."""
        return np.asarray(self.clean.labels == self.truth)

    def rows(self, chosen: NDArray[np.int64], weights: Float32s | None = None) -> "Subject":
        """Some of the images; without weights of their own each keeps how often a resample drew it."""
        return Subject(
            images=self.images[chosen],
            truth=self.truth[chosen],
            clean=self.clean.rows(chosen),
            weights=self.weights[:, chosen] if weights is None else weights,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacked:
    """What one attack made of them, or of the M of them that it took."""

    entry: SuiteEntry
    images: Bytes8
    """(M, H, W, C), rounded."""
    decisions: Decisions
    disagreements: int
    """Of the torch model's labels with the bundle's."""
    seconds: float
    rows: NDArray[np.int64] | None = None
    """(M,) their positions among the images of the subject; None: all of them."""

    def of(self, subject: Subject) -> Subject:
        """The images that it took, before any attack."""
        return subject if self.rows is None else subject.rows(self.rows)

    def spread(self, hits: Bools, images: int) -> Bools:
        """Hits (M,) as (N,) over all images; one that was not attacked is none."""
        if self.rows is None:
            return hits
        every = np.zeros(images, bool)
        every[self.rows] = hits
        return every

    def among(self, chosen: NDArray[np.int64]) -> "Attacked":
        """What it made of these images of the subject, as an attack on them alone; others stay out."""
        if self.rows is None:
            return replace(self, images=self.images[chosen], decisions=self.decisions.rows(chosen))
        taken = np.flatnonzero(np.isin(chosen, self.rows))
        places = np.searchsorted(self.rows, chosen[taken])
        return replace(self, images=self.images[places], decisions=self.decisions.rows(places), rows=taken)


def pixels_changed(attacked: Bytes8, clean: Bytes8) -> Float64s:
    """How many pixels differ in some channel, (N,)."""
    return np.asarray((attacked != clean).any(axis=3).sum(axis=(1, 2)).astype(np.float64))


def norms(attacked: Bytes8, clean: Bytes8) -> tuple[Float64s, Float64s]:
    """L2 and Linf norm of the change, each (N,), in units of the [0, 1] image."""
    change = np.abs(attacked.astype(np.int64) - clean.astype(np.int64)).reshape(len(clean), -1)
    return np.sqrt((change**2).sum(axis=1)) / 255, change.max(axis=1) / 255


def inside(attacked: Bytes8, clean: Bytes8, norm: str, eps: float) -> Bools:
    """Where the change keeps the budget; a millionth more is allowed for float rounding of eps itself."""
    l2, linf = norms(attacked, clean)
    return np.asarray((l2 if norm == "l2" else linf) <= eps * (1 + 1e-6))


def supported(alphas: Sequence[float], n: int) -> tuple[float, ...]:
    """The alphas that n calibration images can keep."""
    return tuple(alpha for alpha in alphas if alpha_rank(alpha, n) >= 1)


def judge_attack(subject: Subject, attacked: Attacked, budgets: Budgets) -> AttackResult:
    """All figures of one attack, over the images that it took."""
    subject = attacked.of(subject)
    right, every = subject.right, np.ones(len(subject.truth), bool)
    wrong = attacked.decisions.labels != subject.truth
    successful = right & wrong
    entry, weights = attacked.entry, subject.weights
    l2, linf = norms(attacked.images, subject.images)
    fused, clean = attacked.decisions.scores[FUSED], subject.clean.scores[FUSED]
    return AttackResult(
        name=entry.name,
        title=entry.title,
        description=entry.description,
        settings=repr(entry.attack),
        is_adaptive=entry.is_adaptive,
        norm=entry.norm,
        eps=entry.eps,
        images=len(every),
        successful=int(successful.sum()),
        failed=int((right & ~wrong).sum()),
        wrong_before=int((~right).sum()),
        success_rate=share_estimate(wrong, right, weights),
        success_within_budget=_success_within(subject, attacked, budgets),
        accuracy=share_estimate(~wrong, every, weights),
        median_l2=_median(l2[successful]),
        median_linf=_median(linf[successful]),
        breaks_at=_breaks_at(subject, attacked),
        aurocs=tuple(_aurocs(name, subject, attacked, successful) for name in subject.clean.scores),
        partial_aurocs={f"{largest:g}": partial_auroc(fused, clean, largest) for largest in PARTIAL},
        tpr_at_fpr={f"{fpr:g}": tpr_at_fpr(fused, clean, fpr) for fpr in ALPHAS},
        detected=_rates(subject, attacked, accepted_and_wrong=False),
        accepted_and_wrong=_rates(subject, attacked, accepted_and_wrong=True),
        seconds=attacked.seconds,
    )


def _success_within(subject: Subject, attacked: Attacked, budgets: Budgets) -> Estimate:
    """Over no image at all for a kind of attack that has no budget."""
    norm, none = attacked.entry.norm, np.zeros(len(subject.truth), bool)
    if norm not in BUDGETED:
        return share_estimate(none, none, subject.weights)
    within = inside(attacked.images, subject.images, norm, budgets.of(norm))
    wrong = np.asarray(attacked.decisions.labels != subject.truth)
    return share_estimate(within & wrong, subject.right, subject.weights)


def _aurocs(name: str, subject: Subject, attacked: Attacked, successful: Bools) -> DetectorAuroc:
    scores, clean = attacked.decisions.scores[name], subject.clean.scores[name]
    right, every = subject.right, np.ones(len(scores), bool)
    pairs = {"all": (every, every), "successful": (successful, right), "failed": (right & ~successful, right)}
    estimates = {
        key: auroc_estimate(scores, clean, subject.weights, positives=positives, negatives=negatives)
        for key, (positives, negatives) in pairs.items()
    }
    return DetectorAuroc(detector=name, **estimates)


def _rates(subject: Subject, attacked: Attacked, *, accepted_and_wrong: bool) -> tuple[RateAt, ...]:
    right, wrong = subject.right, attacked.decisions.labels != subject.truth
    among = {"all": np.ones(len(wrong), bool), "successful": right & wrong, "failed": right & ~wrong}
    rates = []
    for alpha in supported(ALPHAS, attacked.decisions.smallest_row):
        rejected = attacked.decisions.rejected(alpha)
        hits = wrong & ~rejected if accepted_and_wrong else rejected
        shares = {key: share_estimate(hits, group, subject.weights) for key, group in among.items()}
        rates.append(RateAt(alpha=alpha, **shares))
    return tuple(rates)


def judge_union(subject: Subject, attacks: Sequence[Attacked], norm: str, eps: float) -> UnionResult:
    """The worst case of each image over the attacks whose image of it keeps the budget.

    Whatever the attack aimed at: an L2 attack's image that also keeps the Linf budget counts against it. An image is
    safe only when every attack that took it failed on it; one that an attack left out is not broken by it. Source:
    MEAD (Granese et al. 2022, arXiv 2206.15415), per image.
    """
    right, every = subject.right, np.ones(len(subject.truth), bool)
    within: Bools = np.zeros((len(attacks), len(every)), bool)
    wrong = within.copy()
    for number, a in enumerate(attacks):
        own = a.of(subject)
        within[number] = a.spread(inside(a.images, own.images, norm, eps), len(every))
        wrong[number] = a.spread(a.decisions.labels != own.truth, len(every))
    fooled = within & wrong
    broken: Bools = np.asarray(fooled.any(axis=0))
    alone = fooled & (fooled.sum(axis=0) == 1) & right
    rejection = tuple(
        _rejection(subject, attacks, fooled, alpha) for alpha in supported(ALPHAS, subject.clean.smallest_row)
    )
    return UnionResult(
        is_adaptive=any(a.entry.is_adaptive for a in attacks),
        norm=norm,
        eps=eps,
        attacks=tuple(a.entry.name for a, row in zip(attacks, within, strict=True) if row.any()),
        accuracy=share_estimate(right & ~broken, every, subject.weights),
        success_rate=share_estimate(broken, right, subject.weights),
        only_by={a.entry.name: int(row.sum()) for a, row in zip(attacks, alone, strict=True)},
        rejection=rejection,
    )


def _rejection(subject: Subject, attacks: Sequence[Attacked], fooled: Bools, alpha: float) -> Rejection:
    every = np.ones(len(subject.truth), bool)
    clean_rejected = subject.clean.rejected(alpha)
    lost = ~subject.right & ~clean_rejected  # no attack at all is one of the attacks
    for attack, row in zip(attacks, fooled, strict=True):
        lost = lost | (row & ~attack.spread(attack.decisions.rejected(alpha), len(every)))
    return Rejection(
        alpha=alpha,
        robust_accuracy=share_estimate(~lost, every, subject.weights),
        strict=share_estimate(~lost & ~clean_rejected, every, subject.weights),
        clean_rejected=share_estimate(clean_rejected, every, subject.weights),
    )


def judge_clean(
    clean: Decisions, truth: NDArray[np.int64], weights: Float32s, *, alpha: float, disagreements: int, compared: int
) -> CleanResult:
    """Accuracy on all clean test images."""
    right, every = clean.labels == truth, np.ones(len(truth), bool)
    return CleanResult(
        accuracy=share_estimate(right, every, weights),
        accuracy_of_accepted=share_estimate(right, ~clean.rejected(alpha), weights),
        balanced_accuracy=balanced_accuracy(right, truth),
        disagreements=disagreements,
        compared=compared,
    )


def balanced_accuracy(right: Bools, truth: NDArray[np.int64]) -> float | None:
    """Mean over the classes that occur of the share that is right."""
    if not truth.size:
        return None
    return float(np.mean([right[truth == label].mean() for label in np.unique(truth)]))


def judge_false_positives(clean: Decisions, alpha: float) -> FalsePositives:
    """Holds a promised rate against the clean test images; an alpha that the calibration cannot keep is refused."""
    images = len(clean.labels)
    if alpha_rank(alpha, clean.smallest_row) < 1:
        return FalsePositives(
            alpha=alpha,
            images_needed=images_needed(alpha),
            images=images,
            count=None,
            rate=None,
            binomial_95=None,
            inside_binomial=None,
            promised_95=None,
            inside_promised=None,
        )
    count = int(clean.rejected(alpha).sum())
    ranked = np.bincount(clean.ranked_in, minlength=clean.row_sizes.size)
    binomial, promised = binomial_range(images, alpha), promised_range(ranked, alpha, clean.row_sizes)
    return FalsePositives(
        alpha=alpha,
        images_needed=None,
        images=images,
        count=count,
        rate=count / images,
        binomial_95=binomial,
        inside_binomial=count in binomial,
        promised_95=promised,
        inside_promised=count in promised,
    )


def breaking_change(change: Float64s, right: Bools, wrong: Bools, *, budget: float | None = None) -> float | None:
    """The smallest change within which fewer than `BROKEN` of the images stay right; None when they never do.

    Args:
        change: (N,) norms that the attack needed.
        budget: of an attack that uses all of it; None for one that looks for the smallest change.
        right: (N,) where the unattacked image is read rightly; one that is not needs no change at all.
        wrong: (N,) where the attacked image is misread.
    """
    spent = change if budget is None else np.full_like(change, budget)
    needed = np.sort(np.where(~right, 0.0, np.where(wrong, spent, np.inf)))
    found = float(needed[int(np.floor((1 - BROKEN) * needed.size))])  # one image more than 1 - BROKEN of them
    return found if np.isfinite(found) else None


def _breaks_at(subject: Subject, attacked: Attacked) -> float | None:
    """In the attack's own measure; None for a kind that has none."""
    entry, right = attacked.entry, subject.right
    wrong = attacked.decisions.labels != subject.truth
    l2, linf = norms(attacked.images, subject.images)
    changes = {"l2": l2, "linf": linf, "l0": pixels_changed(attacked.images, subject.images)}
    if entry.norm not in changes:
        return None
    return breaking_change(changes[entry.norm], right, wrong, budget=entry.eps)


def _median(values: Float64s) -> float | None:
    return float(np.median(values)) if values.size else None
