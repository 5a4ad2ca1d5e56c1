"""Whoever makes or labels generated images must not have learned from images that are held out.

A set's cut depends on its name, on data.seed and on the sizes of the parts before the training part: where these agree,
two recipes hold out the same images.
"""

from collections.abc import Mapping
from typing import Any

from service.errors import SetupError
from training.config import Recipe, recipe_to_dict
from training.data import WITHOUT_TEST
from training.differences import differences

__all__ = ["check_unseen"]

BEFORE_TRAINING = ("selection", "fit", "calibration", "fusion", "seed")


def check_unseen(whose: str, theirs: Mapping[str, Any], recipe: Recipe) -> None:
    """Refuses a run, a bundle or a generator that learned from images which this recipe holds out.

    Args:
        whose: says in the message who learned.
        theirs: section `data` of the recipe by which it learned; that of another set is let pass, as is an empty one,
            of which nothing is known.
        recipe: by which training is to be done.

    Raises:
        SetupError: names the keys that differ.
    """
    ours = recipe_to_dict(recipe)["data"]
    if theirs.get("set") != ours["set"]:
        return
    # Without a test split of its own, a set's test images are what the training part leaves.
    keys = [*BEFORE_TRAINING, *(["train"] if ours["set"] in WITHOUT_TEST else [])]
    pairs = [{f"data.{key}": table.get(key) for key in keys} for table in (ours, theirs)]
    if different := differences(*pairs):
        raise SetupError(
            f"{whose}: expected one that learned from this recipe's training images alone, got one with {different}; "
            "it may have seen images that are held out here"
        )
