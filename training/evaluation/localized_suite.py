"""Attacks of `robustness` on the background or the foreground of each image, and which masks tell the two."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from service.errors import SetupError
from training.attacks import Fgsm, FirstFooling, Pgd
from training.attacks.localized import Localized, Region
from training.attacks.rounding import levels
from training.checkpoint import Run
from training.data import load_data
from training.evaluation.eight_bit import Settled
from training.evaluation.entries import Budgets, SuiteEntry
from training.evaluation.strength import Strength
from training.masks import Masks, build_masks
from training.methods_localized import MaskKind

__all__ = ["NAMES", "check_masked", "localized_battery", "masks_for"]

REGIONS: tuple[Region, ...] = ("background", "foreground")
NAMES = tuple(f"{region}_{attack}" for region in REGIONS for attack in ("fgsm", "pgd"))

_KINDS: Mapping[str, MaskKind] = {str(kind): kind for kind in get_args(MaskKind) if kind != "file"}
_OF_NETWORK = ("saliency", "cam")


def localized_battery(budgets: Budgets, strength: Strength, masks: Masks) -> tuple[SuiteEntry, ...]:
    """FGSM and PGD on each region alone, at the whole Linf budget, of at least a level."""
    eps = levels(budgets.linf) / 255
    settle = Settled("linf", eps)
    entries = []
    for region in REGIONS:
        fgsm = Localized(attack=Fgsm(eps=eps), masks=masks, region=region)
        pgd = Localized(attack=Pgd(eps=eps, steps=strength.steps), masks=masks, region=region)
        entries += [
            SuiteEntry(
                name=f"{region}_fgsm",
                title=f"FGSM, {region}",
                description=f"One step uphill of the whole budget that leaves all but the {region} alone.",
                norm="linf",
                eps=eps,
                attack=fgsm,
            ),
            SuiteEntry(
                name=f"{region}_pgd",
                title=f"PGD, {region}",
                description=f"PGD with many steps and several random starts that leaves all but the {region} alone.",
                norm="linf",
                eps=eps,
                attack=FirstFooling(attacks=(pgd,) * strength.restarts, settle=settle),
            ),
        ]
    return tuple(entries)


def masks_for(run: Run, mask: str | None, mask_run: Path | None, data_root: Path | None) -> Masks | None:
    """What tells background from foreground in a run's images.

    Args:
        run: that is measured.
        mask: a kind as in a recipe, or an .npz file of masks; None for those of the recipe, where it trains localized.
        mask_run: whose network the maps are of, for kinds that are of one; None for that of the recipe, or else of the
            run itself.
        data_root: folder of the data.

    Returns:
        None where neither the caller nor the recipe names a mask.

    Raises:
        SetupError: no such kind or file, or masks that do not suit the run's images.
    """
    section = run.recipe.localized
    if mask is not None and mask in _KINDS:
        section = dataclasses.replace(section, mask=_KINDS[mask])
    elif mask is not None:
        if not mask.endswith(".npz"):
            raise SetupError(f"--mask: expected one of {', '.join(_KINDS)} or an .npz file of masks, got {mask!r}")
        section = dataclasses.replace(section, mask="file", file=mask)
    elif not section.is_on:
        if mask_run:
            raise SetupError("--mask-run: expected --mask cam or saliency beside it, got no --mask")
        return None
    if mask_run:
        if section.mask not in _OF_NETWORK:
            raise SetupError(f"--mask-run: expected masks of kind {' or '.join(_OF_NETWORK)}, got {section.mask}")
        section = dataclasses.replace(section, run=str(mask_run))
    dataset = load_data(run.recipe.data.set, data_root) if section.mask == "file" else None
    return build_masks(section, run.model, run.input_shape, dataset)


def check_masked(names: Sequence[str], masks: Masks | None) -> None:
    """Refuses attacks on a region where nothing tells what it is.

    Raises:
        SetupError: one of the names is of such an attack, and there are no masks.
    """
    for name in names:
        if masks is None and name in NAMES:
            raise SetupError(f"--attacks: expected --mask with {name}, as the run's recipe has no localized.region")
