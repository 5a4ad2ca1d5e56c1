"""The attack on availability: how small a change makes the bundle reject an image that it names rightly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from service.detection.calibration import Calibration
from training.attacks.adaptive import Denial, GraphTarget, Loop, Target
from training.attacks.rounding import levels
from training.evaluation.bootstrap import share_estimate
from training.evaluation.decisions import FUSED, Decisions
from training.evaluation.judging import ALPHAS, Attacked, Subject, supported
from training.evaluation.results import AlarmsAt, AvailabilityAt
from training.evaluation.suite import Budgets, NormName, SuiteEntry
from training.graph import BundleGraph

__all__ = ["SHARES", "availability_suite", "judge_availability"]

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Of the budget. Source: the curve over the radius of Chen et al. 2023 (arXiv 2305.01139)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Raised:
    """A denial as one of a suite."""

    denial: Denial
    target: Target
    words: str

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """See training.attacks.Attack."""
        return self.denial(self.target, images, generator).images

    def __repr__(self) -> str:
        return self.words


def availability_suite(
    graph: BundleGraph,
    calibration: Calibration,
    calibration_id: str,
    budgets: Budgets,
    norm: NormName,
    *,
    steps: int,
    restarts: int,
) -> tuple[SuiteEntry, ...]:
    """PGD that raises the fused suspicion, within a share of the budget after the other.

    A share that leaves no level of an 8-bit image is left out: nothing can be changed by less.
    """
    entries = []
    for share in SHARES:
        eps = share * budgets.of(norm)
        if norm == "linf" and not levels(eps):
            continue
        loop = Loop(norm=norm, eps=eps, steps=steps, restarts=restarts)
        entries.append(
            SuiteEntry(
                name=f"denial_{share:g}",
                title=f"Denial, {share:g} of the budget",
                description="Raises the suspicion of a clean image.",
                norm=norm,
                eps=eps,
                attack=_Raised(
                    denial=Denial(loop=loop),
                    target=GraphTarget(graph, calibration),
                    words=f"Denial({loop}) at bundle {calibration_id}",
                ),
                is_adaptive=True,
            )
        )
    return tuple(entries)


def judge_availability(subject: Subject, attacked: Sequence[Attacked]) -> tuple[AvailabilityAt, ...]:
    """Share of the clean, rightly named and accepted images that are rejected within each change."""
    return tuple(
        AvailabilityAt(
            norm=norm,
            eps=eps,
            rejected=tuple(
                AlarmsAt(
                    alpha=alpha,
                    rate=share_estimate(
                        decisions.rejected(alpha), subject.right & ~subject.clean.rejected(alpha), subject.weights
                    ),
                )
                for alpha in supported(ALPHAS, subject.clean.smallest_row)
            ),
        )
        for norm, eps, decisions in _growing(subject, attacked)
    )


def _growing(subject: Subject, attacked: Sequence[Attacked]) -> list[tuple[str, float, Decisions]]:
    """The decisions of each change and of all smaller ones: a larger budget may always do what a smaller one did."""
    worst = subject.clean
    found: list[tuple[str, float, Decisions]] = []
    for one in attacked:
        worst = _more_suspicious(worst, one.decisions)
        found.append((one.entry.norm, one.entry.eps or 0.0, worst))
    return found


def _more_suspicious(first: Decisions, second: Decisions) -> Decisions:
    takes = second.p_values[FUSED] < first.p_values[FUSED]
    return Decisions(
        labels=np.where(takes, second.labels, first.labels),
        scores={name: np.where(takes, second.scores[name], values) for name, values in first.scores.items()},
        p_values={name: np.where(takes, second.p_values[name], values) for name, values in first.p_values.items()},
        ranked_in=np.where(takes, second.ranked_in, first.ranked_in),
        row_sizes=first.row_sizes,
    )
