"""Attacks of `evaluate` of kinds that no budget of a threat model speaks of, as entries of its suite."""

from training.attacks.fmn import Fmn
from training.attacks.jsma import Jsma
from training.attacks.patch import Patch
from training.attacks.spatial import Spatial
from training.evaluation.blind_strength import BlindStrength
from training.evaluation.entries import SuiteEntry

__all__ = ["unseen_suite"]


def unseen_suite(strength: BlindStrength) -> tuple[SuiteEntry, ...]:
    """Few pixels, one patch, and shifts with turns."""
    return (
        SuiteEntry(
            name="jsma",
            title="JSMA",
            description="Drives the few values to white that most favour the likeliest wrong class.",
            norm="l0",
            eps=None,
            attack=Jsma(theta=1.0, gamma=0.1),
            images=strength.jsma_images,
        ),
        SuiteEntry(
            name="l0",
            title="Fewest pixels",
            description="Looks for the smallest number of pixels whose change fools, by whatever it takes.",
            norm="l0",
            eps=None,
            attack=Fmn(norm="l0", steps=strength.search_steps),
        ),
        SuiteEntry(
            name="patch",
            title="Patch",
            description="Fills a square of 5 × 5 pixels with anything at all, at one place after the other.",
            norm="patch",
            eps=None,
            attack=Patch(side=5, steps=strength.patch_steps, places=strength.places),
            images=strength.patch_images,
        ),
        SuiteEntry(
            name="spatial",
            title="Shift and turn",
            description="Moves the image by up to 3 pixels and turns it by up to 15 degrees.",
            norm="spatial",
            eps=None,
            attack=Spatial(shift=3, turn=15, shifts=strength.shifts, turns=strength.angles),
            images=strength.spatial_images,
        ),
    )
