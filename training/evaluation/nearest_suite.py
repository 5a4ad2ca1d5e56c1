"""The attacks of `evaluate` that look for the smallest change that fools, as entries of its suite."""

from training.attacks.fmn import Fmn
from training.attacks.hop_skip_jump import HopSkipJump
from training.attacks.library import DDN, CarliniWagnerL2, DeepFool
from training.evaluation.blind_strength import BlindStrength
from training.evaluation.entries import SuiteEntry

__all__ = ["nearest_suite"]

_KAPPAS = (5, 10, 20, 40)
"""Logit leads that the wrong class must win by."""


def nearest_suite(strength: BlindStrength) -> tuple[SuiteEntry, ...]:
    """Those with gradients first; the last see the label alone."""
    steps = strength.search_steps
    return (
        SuiteEntry(
            name="deepfool",
            title="DeepFool",
            description="Walks to the nearest class boundary and stops right behind it.",
            norm="l2",
            eps=None,
            attack=DeepFool(norm="l2"),
        ),
        SuiteEntry(
            name="deepfool_linf",
            title="DeepFool Linf",
            description="As DeepFool, with the smallest largest change of any pixel value.",
            norm="linf",
            eps=None,
            attack=DeepFool(norm="linf"),
        ),
        SuiteEntry(
            name="ddn",
            title="DDN",
            description="Shrinks the change while the image fools and widens it while it does not.",
            norm="l2",
            eps=None,
            attack=DDN(steps=steps),
        ),
        SuiteEntry(
            name="fmn_linf",
            title="FMN Linf",
            description="Looks for the smallest largest change of any pixel value that fools.",
            norm="linf",
            eps=None,
            attack=Fmn(norm="linf", steps=steps),
        ),
        SuiteEntry(
            name="fmn_l2",
            title="FMN L2",
            description="Looks for the shortest change that fools.",
            norm="l2",
            eps=None,
            attack=Fmn(norm="l2", steps=steps),
        ),
        *_carlini_wagner(strength),
        SuiteEntry(
            name="hop_skip_jump",
            title="HopSkipJump",
            description="Walks along the class boundary by the label alone: no gradient, no class scores.",
            norm="linf",
            eps=None,
            attack=HopSkipJump(norm="linf", turns=strength.turns, probes=strength.probes),
            images=strength.hop_skip_jump_images,
        ),
        SuiteEntry(
            name="hop_skip_jump_l2",
            title="HopSkipJump L2",
            description="The same for the shortest change.",
            norm="l2",
            eps=None,
            attack=HopSkipJump(norm="l2", turns=strength.turns, probes=strength.probes),
            images=strength.hop_skip_jump_images,
        ),
    )


def _carlini_wagner(strength: BlindStrength) -> list[SuiteEntry]:
    thorough = "A thorough search for the smallest change that fools at all."
    confident = "As C&W, but the wrong class must win clearly, which costs a larger change."
    return [
        SuiteEntry(
            name=f"cw_l2_k{kappa}" if kappa else "cw_l2",
            title=f"C&W L2, κ = {kappa}" if kappa else "C&W L2",
            description=confident if kappa else thorough,
            norm="l2",
            eps=None,
            attack=CarliniWagnerL2(
                steps=strength.carlini_steps,
                bisections=strength.bisections,
                initial_constant=strength.carlini_constant,
                confidence=float(kappa),
            ),
            images=strength.carlini_images,
        )
        for kappa in (0, *_KAPPAS)
    ]
