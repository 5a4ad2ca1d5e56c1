"""Attacks that know the detectors and the calibration: an image counts when it fools and is accepted.

A new way to weigh the two is a rule; a new attack is one file and one row in the test table.
"""

from typing import Protocol

import torch
from torch import Tensor

from training.attacks.adaptive.accepted_square import AcceptedSquare
from training.attacks.adaptive.boundary_walk import BoundaryWalk
from training.attacks.adaptive.confidence import HighConfidence
from training.attacks.adaptive.denial import Denial, Raised
from training.attacks.adaptive.found import Found, Traced, joined
from training.attacks.adaptive.loop import AdaptivePgd, Loop
from training.attacks.adaptive.matching import Matched, Matching, choose_exemplars, clean_deviations
from training.attacks.adaptive.rules import Confident, Deep, Lagrangian, Orthogonal, Rule, Selective
from training.attacks.adaptive.stand_in import GraphTarget, RowOrder, SmoothLogP, SmoothSuspicion
from training.attacks.adaptive.sweep import WEIGHTS, LagrangianSweep
from training.attacks.adaptive.target import Target, aim_at, clean_spread
from training.attacks.adaptive.targeted import MultiTargeted
from training.attacks.adaptive.union import AttackUnion, union_of

__all__ = [
    "WEIGHTS",
    "AcceptedSquare",
    "AdaptiveAttack",
    "AdaptivePgd",
    "AttackUnion",
    "BoundaryWalk",
    "Confident",
    "Deep",
    "Denial",
    "Found",
    "GraphTarget",
    "HighConfidence",
    "Lagrangian",
    "LagrangianSweep",
    "Loop",
    "Matched",
    "Matching",
    "MultiTargeted",
    "Orthogonal",
    "Raised",
    "RowOrder",
    "Rule",
    "Selective",
    "SmoothLogP",
    "SmoothSuspicion",
    "Target",
    "Traced",
    "aim_at",
    "choose_exemplars",
    "clean_deviations",
    "clean_spread",
    "joined",
    "union_of",
]


class AdaptiveAttack(Protocol):
    """Looks, for each image by itself, for the least suspicious version that fools."""

    def __call__(
        self,
        target: Target,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        *,
        targets: Tensor | None = None,
    ) -> Found:
        """Attacks N images.

        Args:
            target: what is attacked; a module is left as found.
            images: (N, C, H, W) in [0, 1]; whole multiples of 1/255 unless the attack does without rounding.
            labels: (N,) true classes.
            generator: of every random number that the attack draws.
            targets: (N,) classes to be led to; None for any wrong one.

        Raises:
            SetupError: images that are not of 8 bits, a target of the true class, or a target without gradients.
        """
