"""The attacks of `evaluate` that keep a budget and see the classifier alone, as entries of its suite."""

from training.attacks import Apgd, Attack, Fgsm, Mim, Pgd, Square, TargetedApgd
from training.evaluation.blind_strength import BlindStrength
from training.evaluation.entries import BUDGETED, Budgets, NormName, SuiteEntry

__all__ = ["bounded_suite"]


def bounded_suite(budgets: Budgets, strength: BlindStrength) -> tuple[SuiteEntry, ...]:
    """Weakest first."""
    steps, restarts, further = strength.steps, strength.restarts, strength.further_restarts
    linf, l2 = budgets.linf, budgets.l2
    entries = [
        _entry("fgsm", "FGSM", "One step uphill: every pixel value moves by the whole budget at once.", Fgsm(eps=linf)),
        _entry("fgsm_l2", "FGSM L2", "One step uphill, as long as the budget.", Fgsm(norm="l2", eps=l2)),
        _entry(
            "bim",
            "BIM",
            "FGSM in forty small steps from the image itself.",
            Pgd(eps=linf, step=linf / 10, steps=40, random_start=False),
        ),
        _entry(
            "pgd",
            "PGD",
            "Many small steps uphill inside the budget, from several random starts.",
            Pgd(eps=linf, steps=steps, restarts=restarts),
        ),
        _entry(
            "margin_pgd",
            "Margin PGD",
            "As PGD, but it lowers the right class's lead over the strongest wrong one.",
            Pgd(eps=linf, steps=steps, restarts=further, loss="margin"),
        ),
        _entry(
            "pgd_150",
            "PGD at 1.5 budgets",
            "PGD with half as much again as the classifier was trained for.",
            Pgd(eps=1.5 * linf, steps=steps, restarts=further),
        ),
        _entry(
            "pgd_l2",
            "PGD L2",
            "PGD that may change few pixels much, as long as the Euclidean length keeps its budget.",
            Pgd(norm="l2", eps=l2, steps=steps, restarts=further),
        ),
        _entry(
            "margin_pgd_l2",
            "Margin PGD L2",
            "Margin PGD within the Euclidean budget.",
            Pgd(norm="l2", eps=l2, steps=steps, restarts=further, loss="margin"),
        ),
    ]
    for norm in BUDGETED:
        eps, ending, title = budgets.of(norm), _ENDINGS[norm], _TITLES[norm]
        entries += [
            _entry(
                f"mim{ending}",
                f"Momentum{title}",
                "Small steps uphill along the average of all gradients so far.",
                Mim(norm=norm, eps=eps, step=2.5 * eps / steps, steps=steps),
            ),
            _entry(
                f"apgd_ce{ending}",
                f"APGD-CE{title}",
                "PGD that halves its steps by itself where they no longer help, and stops at the first success.",
                Apgd(norm=norm, eps=eps, steps=strength.apgd_steps, restarts=strength.apgd_restarts),
            ),
            _entry(
                f"square{ending}",
                f"Square{title}",
                "Random squares, kept where they help; it sees the class scores and no gradient.",
                Square(norm=norm, eps=eps, queries=strength.queries),
            ),
        ]
    apgd = strength.apgd_steps
    return (
        *entries,
        _entry(
            "apgd_dlr",
            "APGD-DLR",
            "As APGD, on the lead of the right class in units of the leads among the classes.",
            Apgd(eps=linf, steps=apgd, restarts=strength.apgd_restarts, loss="dlr"),
            least_classes=3,
        ),
        _entry(
            "apgd_t",
            "APGD-T",
            "As APGD-DLR, towards each of the likeliest wrong classes in turn.",
            TargetedApgd(eps=linf, steps=apgd, restarts=strength.apgd_restarts),
            least_classes=4,
        ),
    )


_ENDINGS = {"linf": "", "l2": "_l2"}
_TITLES = {"linf": "", "l2": " L2"}

_Bounded = Apgd | Fgsm | Mim | Pgd | Square | TargetedApgd


def _entry(name: str, title: str, description: str, attack: _Bounded, *, least_classes: int = 2) -> SuiteEntry:
    norm: NormName = attack.norm
    made: Attack = attack
    return SuiteEntry(
        name=name,
        title=title,
        description=description,
        norm=norm,
        eps=attack.eps,
        attack=made,
        least_classes=least_classes,
    )
