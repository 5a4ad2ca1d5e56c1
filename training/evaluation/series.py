"""Attacks beside the suite, on some of its images: at growing changes, and one with ever more steps and restarts.

They tell where a bundle breaks and whether the attacks had come to their end, at a part of the suite's cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from training.attacks import Pgd
from training.attacks.adaptive import (
    AdaptiveAttack,
    AdaptivePgd,
    GraphTarget,
    LagrangianSweep,
    Loop,
    Selective,
    clean_spread,
)
from training.attacks.rounding import from_8_bit, levels
from training.evaluation.adaptive_suite import device_of, embedding_of
from training.evaluation.aimed import Aimed, Known, NearExemplars
from training.evaluation.suite import Budgets, NormName, SuiteEntry

__all__ = ["ALONE", "FULL", "KNOWING", "QUICK", "STANDARD", "Series", "SeriesStrength", "attack_series"]

ALONE = (1 / 4, 1 / 2, 3 / 4, 1.0, 3 / 2, 2.0)
"""Shares of the budget at which the classifier alone is attacked: those of `KNOWING` and their halves."""
KNOWING = (1 / 2, 1.0, 3 / 2, 2.0)
"""Shares at which it is attacked by those who know the detectors."""

_WEIGHTS = (0.1, 1.0, 10.0)
"""Of the Lagrangian attack, a third of those of the suite."""
_BISECTIONS = 1


@dataclass(frozen=True, kw_only=True)
class SeriesStrength:
    """How much the series may compute."""

    images: int
    """Of those that the suite attacks, at most."""
    steps: int
    """Of an attack at one size."""
    lengths: tuple[int, ...]
    """Rising numbers of steps of one restart."""
    restarts: tuple[int, ...]
    """Rising numbers of restarts above 1, each run of `steps_of_restarts`."""
    steps_of_restarts: int


QUICK = SeriesStrength(images=32, steps=5, lengths=(3, 10), restarts=(2,), steps_of_restarts=3)
"""Far too weak for a figure; for tests and a first look."""
STANDARD = SeriesStrength(images=200, steps=30, lengths=(10, 30, 100), restarts=(2, 5), steps_of_restarts=10)
FULL = SeriesStrength(images=500, steps=200, lengths=(10, 30, 100, 300, 1_000), restarts=(2, 5), steps_of_restarts=100)


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """The attacks and what they are run on."""

    strength: SeriesStrength
    known: Known
    scale: float
    """The unit of the suspicion, its `clean_spread`."""
    norm: NormName
    """Of the threat model."""
    eps: float
    """Its budget."""

    def growing(self) -> tuple[SuiteEntry, ...]:
        """The attacks at each size; sizes that leave no level of an 8-bit image are left out."""
        entries = []
        for share in ALONE:
            eps = share * self.eps
            if self.norm == "linf" and not levels(eps):
                continue
            entries.append(
                SuiteEntry(
                    name=f"sweep_pgd_{share:g}",
                    title=f"Margin PGD, {share:g} of the budget",
                    description="Lowers the right class’s lead; knows nothing of the detectors.",
                    norm=self.norm,
                    eps=eps,
                    attack=Pgd(norm=self.norm, eps=eps, steps=self.strength.steps, restarts=2, loss="margin"),
                )
            )
            if share in KNOWING:
                loop = Loop(norm=self.norm, eps=eps, steps=self.strength.steps)
                entries += [self._entry(kind, loop, f"sweep_{kind}_{share:g}") for kind in _TITLES]
        return tuple(entries)

    def longer(self, kind: str) -> tuple[SuiteEntry, ...]:
        """One kind of attack at the budget with ever more steps, then restarts; (steps, restarts) are in `sizes`."""
        return tuple(
            self._entry(
                kind,
                Loop(norm=self.norm, eps=self.eps, steps=steps, restarts=restarts),
                f"converge_{kind}_{steps}x{restarts}",
            )
            for steps, restarts in self.sizes
        )

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Steps and restarts of `longer`."""
        strength = self.strength
        return (
            *((steps, 1) for steps in strength.lengths),
            *((strength.steps_of_restarts, restarts) for restarts in strength.restarts),
        )

    def strongest(self, passed: Sequence[tuple[SuiteEntry, float]]) -> str:
        """The kind of attack at the budget itself that passed most often; of equals the first."""
        rates = {entry.name: rate for entry, rate in passed}
        return max(_TITLES, key=lambda kind: rates[f"sweep_{kind}_1"])

    def title(self, kind: str) -> str:
        """Of a kind of attack."""
        return _TITLES[kind]

    def _entry(self, kind: str, loop: Loop, name: str) -> SuiteEntry:
        known, title = self.known, _TITLES[kind]
        return SuiteEntry(
            name=name,
            title=f"{title}, {loop.eps / self.eps:g} of the budget",
            description="At a part of the cost of the attack of this name in the suite.",
            norm=self.norm,
            eps=loop.eps,
            attack=Aimed(
                attack=self._attack(kind, loop),
                target=GraphTarget(known.graph, known.calibration),
                words=f"{kind}(weights={_WEIGHTS}, bisections={_BISECTIONS}, {loop}) at bundle {known.calibration_id}",
            ),
            is_adaptive=True,
        )

    def _attack(self, kind: str, loop: Loop) -> AdaptiveAttack:
        if kind == "selective":
            return AdaptivePgd(loop=loop, rule=Selective())
        if kind == "lagrangian":
            return LagrangianSweep(loop=loop, scale=self.scale, weights=_WEIGHTS, bisections=_BISECTIONS)
        return NearExemplars(loop=loop, known=self.known, see=embedding_of(self.known.graph), nearest=1, others=0)


_TITLES = {"selective": "Selective PGD", "lagrangian": "Lagrangian", "match_embedding": "Matching embedding"}


def attack_series(known: Known, budgets: Budgets, norm: NormName, strength: SeriesStrength) -> Series:
    """The series against a bundle, in the norm of its threat model."""
    target = GraphTarget(known.graph, known.calibration)
    scale = clean_spread(target, from_8_bit(known.images).to(device_of(known.graph)))
    return Series(strength=strength, known=known, scale=scale, norm=norm, eps=budgets.of(norm))
