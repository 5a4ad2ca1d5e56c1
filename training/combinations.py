"""Sections of a recipe that do not go together, each refused with one message before anything is trained."""

from typing import TYPE_CHECKING

from service.errors import SetupError
from training.methods_localized import check_localized
from training.methods_metric import check_beside_metric

if TYPE_CHECKING:
    from training.config import Recipe

__all__ = ["check_combinations"]

AUGMENTATIONS = ("rotate", "zoom", "brightness", "contrast", "flip")
STARTS = (
    ("sar", "start_epoch"),
    ("pairing", "start_epoch"),
    ("awp", "start_epoch"),
    ("averaging", "start_epoch"),
    ("attack", "warmup_epochs"),
    ("localized", "start_epoch"),
)


def check_combinations(recipe: "Recipe") -> None:
    """Checks a recipe whose sections are valid, each by itself.

    Raises:
        SetupError: names the key that does not go with another one, and what to change.
    """
    check_localized(recipe.localized, recipe.attack, recipe.train, AUGMENTATIONS)
    augments = [key for key in AUGMENTATIONS if getattr(recipe.train, key)]
    if recipe.attack.renew_epochs and augments:
        raise SetupError(
            f"attack.renew_epochs: expected 0 with train.{augments[0]}, got {recipe.attack.renew_epochs}; "
            "a perturbation follows its image through train.shift only"
        )
    recipe.minmax.check_beside(recipe.attack, trades_weight=recipe.trades.weight)
    if recipe.minmax.budgets and recipe.localized.is_on:
        raise SetupError(
            f'localized.region: expected "none" with minmax.combine = "{recipe.minmax.combine}", got '
            f'"{recipe.localized.region}"; attacks in several norms change the whole image, so leave one of the two out'
        )
    if recipe.proxy.is_on:
        _check_beside_proxy(recipe)
    for name in ("sar", "pairing", "trades"):
        weight = getattr(recipe, name).weight
        if weight and recipe.attack.name == "none":
            raise SetupError(
                f'{name}.weight: expected 0 with attack.name = "none", got {weight:g}; it compares clean with '
                "attacked images, so choose an attack or leave it out"
            )
    for name, key in STARTS:
        start = getattr(getattr(recipe, name), key)
        if start >= recipe.train.epochs:
            raise SetupError(
                f"{name}.{key}: expected less than train.epochs, {recipe.train.epochs}, got {start:g}; "
                "it would never come to its full effect"
            )
    check_beside_metric(recipe)


def _check_beside_proxy(recipe: "Recipe") -> None:
    """Refuses what remembers or marks the real images only, or goes by one kind of images."""
    if recipe.attack.renew_epochs:
        raise SetupError(
            f"attack.renew_epochs: expected 0 with proxy.set, got {recipe.attack.renew_epochs}; perturbations are "
            "remembered of real images only"
        )
    if recipe.localized.is_on:
        raise SetupError(
            f'localized.region: expected "none" with proxy.set, got "{recipe.localized.region}"; masks and the share '
            "of clean images are of real images only, so leave one of the two out"
        )
