"""The attacks of a report that know the detectors and the calibration, as entries of its suite.

They are aimed at the bundle's torch twin; what they leave is judged by the bundle, as every attacked image is.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from service.detection.calibration import Calibration
from service.errors import SetupError
from training.attacks.adaptive import (
    AdaptiveAttack,
    AdaptivePgd,
    Deep,
    GraphTarget,
    HighConfidence,
    LagrangianSweep,
    Loop,
    MultiTargeted,
    Orthogonal,
    Selective,
    clean_spread,
)
from training.attacks.adaptive.accepted_square import AcceptedSquare
from training.attacks.rounding import from_8_bit
from training.attacks.square import Square
from training.evaluation.aimed import Aimed, Each, Known, NearExemplars
from training.evaluation.suite import Budgets, NormName, SuiteEntry
from training.evaluation.walking import WalkFromKnown
from training.graph import BundleGraph

__all__ = ["FULL", "QUICK", "STANDARD", "AdaptiveStrength", "adaptive_suite", "device_of", "embedding_of"]

_MOST_CLASSES = 10
"""Every wrong class is a run of its own: with more of them the attack by confidence is left out."""


_PROJECTIONS: tuple[tuple[Literal["both", "classifier", "detector"], str, str], ...] = (
    ("both", "both", "both gradients are projected"),
    ("classifier", "classifier’s", "only the classifier’s gradient is projected"),
    ("detector", "detectors’", "only the detectors’ gradient is projected"),
)


@dataclass(frozen=True, kw_only=True)
class AdaptiveStrength:
    """How much the attacks may compute."""

    steps: int
    restarts: int
    """But of the Lagrangian attacks, which run once for each of their weights."""
    bisections: int
    nearest: int
    """Exemplars that are nearest in the embedding."""
    others: int
    """Exemplars at random."""
    queries: int
    """Of the attack without gradients."""
    targets: int
    """Wrong classes that an image is led to in turn."""
    turns: int
    """Of the walk along the boundary."""
    probes: int
    """Of its first turn."""
    walk_images: int
    """That walk, at most: it asks some ten thousand times for each."""


QUICK = AdaptiveStrength(
    steps=10,
    restarts=1,
    bisections=2,
    nearest=1,
    others=1,
    queries=50,
    targets=2,
    turns=2,
    probes=10,
    walk_images=10,
)
"""Far too weak for a figure; for tests and a first look."""
STANDARD = AdaptiveStrength(
    steps=50,
    restarts=2,
    bisections=6,
    nearest=2,
    others=1,
    queries=1_000,
    targets=3,
    turns=28,
    probes=100,
    walk_images=20,
)
FULL = AdaptiveStrength(
    steps=1_000,
    restarts=5,
    bisections=8,
    nearest=10,
    others=5,
    queries=5_000,
    targets=9,
    turns=28,
    probes=100,
    walk_images=200,
)


def adaptive_suite(
    known: Known, budgets: Budgets, norm: NormName, strength: AdaptiveStrength, *, alpha: float
) -> tuple[SuiteEntry, ...]:
    """Every adaptive attack in the norm of the threat model, and the two strongest kinds in the other one.

    Args:
        known: what is attacked.
        budgets: of both norms.
        norm: of the threat model.
        strength: how much they may compute.
        alpha: the false-positive rate whose threshold the attack without gradients aims at; the others serve all.
    """
    fused = GraphTarget(known.graph, known.calibration)
    scale = clean_spread(fused, from_8_bit(known.images).to(device_of(known.graph)))
    other: NormName = "l2" if norm == "linf" else "linf"
    entries = []
    for one in (norm, other):
        loop = Loop(norm=one, eps=budgets.of(one), steps=strength.steps, restarts=strength.restarts)
        attacks = _main_attacks(known, loop, strength, scale)
        if one == norm:
            attacks += _further_attacks(known, loop, strength, scale, alpha)
        ending = "" if one == norm else f"_{one}"
        entries += [
            SuiteEntry(
                name=f"adaptive_{attack.name}{ending}",
                title=attack.title + ("" if one == norm else f", {'L2' if one == 'l2' else 'L∞'}"),
                description=attack.description,
                norm=one,
                eps=budgets.of(one),
                attack=Aimed(
                    attack=attack.attack, target=fused, words=f"{attack.words} at bundle {known.calibration_id}"
                ),
                is_adaptive=True,
                images=attack.images,
            )
            for attack in attacks
        ]
    return tuple(entries)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Named:
    name: str
    title: str
    description: str
    attack: AdaptiveAttack
    words: str
    images: int | None = None
    """How many it takes; None for all."""


def _main_attacks(known: Known, loop: Loop, strength: AdaptiveStrength, scale: float) -> list[_Named]:
    once = dataclasses.replace(loop, restarts=1)
    return [
        _Named(
            name="selective",
            title="Selective PGD",
            description="Makes the label wrong first, then lowers the fused suspicion, and goes back when the label "
            "turns right.",
            attack=AdaptivePgd(loop=loop, rule=Selective()),
            words=f"Selective({loop})",
        ),
        _Named(
            name="lagrangian",
            title="Lagrangian",
            description="Lowers label and suspicion at once, for many weights between them, the best for each image.",
            attack=LagrangianSweep(loop=once, scale=scale, bisections=strength.bisections),
            words=f"LagrangianSweep(bisections={strength.bisections}, saturates=True, {once})",
        ),
    ]


def _further_attacks(known: Known, loop: Loop, strength: AdaptiveStrength, scale: float, alpha: float) -> list[_Named]:
    orthogonal = [
        _Named(
            name=f"orthogonal_{projects}",
            title=f"Orthogonal PGD, {which}",
            description=f"As selective PGD, with steps that leave the other aim alone: {how}.",
            attack=AdaptivePgd(loop=loop, rule=Orthogonal(projects=projects)),
            words=f"Orthogonal({projects}, {loop})",
        )
        for projects, which, how in _PROJECTIONS
    ]
    once = dataclasses.replace(loop, restarts=1)
    guides = [GraphTarget(known.graph, known.calibration, of) for of in (*range(len(known.names)), "largest")]
    attacks = [
        *orthogonal,
        _Named(
            name="lagrangian_raw",
            title="Lagrangian, unsaturated",
            description="As the Lagrangian attack, with a label that is driven ever farther off.",
            attack=LagrangianSweep(loop=once, scale=scale, bisections=strength.bisections, saturates=False),
            words=f"LagrangianSweep(bisections={strength.bisections}, saturates=False, {once})",
        ),
        _Named(
            name="single",
            title="Selective PGD on each detector",
            description="Lowers one detector’s suspicion after the other, and the largest of them; the best counts.",
            attack=Each(attacks=tuple(AdaptivePgd(loop=loop, rule=Selective(), guide=guide) for guide in guides)),
            words=f"Selective(guides {', '.join(known.names)}, largest, {loop})",
        ),
        _Named(
            name="targeted",
            title="Selective PGD, targeted",
            description="Selective PGD to one likely wrong class after the other.",
            attack=MultiTargeted(attack=AdaptivePgd(loop=once, rule=Selective()), classes=strength.targets),
            words=f"MultiTargeted({strength.targets}, Selective, {once})",
        ),
        _Named(
            name="deep",
            title="Rejection-aware",
            description="Drives the wrong label deep, so that it survives a detector of nearness to the boundary.",
            attack=AdaptivePgd(loop=loop, rule=Deep()),
            words=f"Deep({loop})",
        ),
        *(
            _Named(
                name=f"match_{what}",
                title=f"Matching {what}",
                description=f"Gives the image the {what} of a clean image of another class that raises no suspicion.",
                attack=NearExemplars(loop=loop, known=known, see=see, nearest=strength.nearest, others=strength.others),
                words=f"Matching({what}, nearest={strength.nearest}, others={strength.others}, {loop})",
            )
            for what, see in (("embedding", embedding_of(known.graph)), ("logits", _logits_of(known.graph)))
        ),
        _Named(
            name="square",
            title="Square on accepted and wrong",
            description=f"Random search without gradients, by what a caller sees at {100 * alpha:g} % false positives.",
            attack=AcceptedSquare(
                square=Square(norm=loop.norm, eps=loop.eps, queries=strength.queries),
                threshold=_accepted_up_to(known.calibration, alpha),
                scale=scale,
            ),
            words=f"AcceptedSquare(queries={strength.queries}, alpha={alpha:g}, {loop.norm}, eps={loop.eps:g})",
        ),
    ]
    attacks.append(
        _Named(
            name="walk",
            title="HopSkipJump on accepted and wrong",
            description="From an accepted image of another class along the boundary, by label and verdict alone, at "
            f"{100 * alpha:g} % false positives.",
            attack=WalkFromKnown(
                known=known,
                norm=loop.norm,
                eps=loop.eps,
                alpha=alpha,
                threshold=_accepted_up_to(known.calibration, alpha),
                turns=strength.turns,
                probes=strength.probes,
            ),
            words=f"Walk(turns={strength.turns}, probes={strength.probes}, alpha={alpha:g}, {loop.norm}, {loop.eps:g})",
            images=strength.walk_images,
        )
    )
    if known.graph.model.head.out_features <= _MOST_CLASSES:
        attacks.append(
            _Named(
                name="confident",
                title="High confidence",
                description="Makes one wrong class after the other as likely as it can be.",
                attack=HighConfidence(loop=loop),
                words=f"HighConfidence({loop})",
            )
        )
    return attacks


def embedding_of(graph: BundleGraph) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """What a classifier's images are matched by, and what their nearness is judged by: its embedding."""

    def see(images: Tensor) -> tuple[Tensor, Tensor]:
        embedding = graph.model.views(images)[1]
        return embedding, embedding

    return see


def _logits_of(graph: BundleGraph) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return lambda images: graph.model.views(images)


def _accepted_up_to(calibration: Calibration, alpha: float) -> float:
    """The largest suspicion that is accepted at alpha.

    Raises:
        SetupError: the calibration cannot support alpha.
    """
    threshold = calibration.fused_threshold(alpha)
    if threshold is None:
        n = calibration.rows.smallest
        raise SetupError(f"alpha {alpha:g}: expected at least {calibration.smallest_alpha:.3g} for {n} images")
    return threshold


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes."""
    return next(module.parameters()).device
