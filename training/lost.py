"""What is said of a loss that is no longer finite: which of its terms it was, and what to lower."""

import math
from collections.abc import Mapping

from training.config import Recipe, recipe_values
from training.method_names import method_names
from training.spelling import toml_value

__all__ = ["to_lower", "told_terms"]


def told_terms(recipe: Recipe, values: Mapping[str, float]) -> str:
    """The terms of a step's loss, by name in training.losses.LOSSES: those that are not finite come first.

    >>> from training.config import load_recipe
    >>> told_terms(load_recipe("digits"), {"classification": 2.5, "tla": math.nan})
    'not finite: TLA = nan (tla.weight = 2.0); finite: cross-entropy = 2.5'
    """
    told = {name: f"{_name(recipe, name)} = {value:.4g}{_weight(recipe, name)}" for name, value in values.items()}
    groups = {
        "not finite": [text for name, text in told.items() if not math.isfinite(values[name])],
        "finite": [text for name, text in told.items() if math.isfinite(values[name])],
    }
    return "; ".join(f"{which}: {', '.join(texts)}" for which, texts in groups.items() if texts)


def to_lower(recipe: Recipe, values: Mapping[str, float]) -> str:
    """The keys to try: the learning rate, and the weights at fault.

    Where all terms are lost, or none, it was the step before that ruined the network: any weight that is set may have.
    """
    lost = [name for name, value in values.items() if not math.isfinite(value)]
    if 0 < len(lost) < len(values):
        keys = [key for name in lost if (key := _weight_key(recipe, name))]
    else:
        keys = [key for key, value in recipe_values(recipe).items() if key.endswith(".weight") and value]
    return " or ".join(["train.learning_rate", *keys])


def _name(recipe: Recipe, term: str) -> str:
    return method_names(recipe).get(_section(term), "cross-entropy")


def _weight(recipe: Recipe, term: str) -> str:
    key = _weight_key(recipe, term)
    return f" ({key} = {toml_value(recipe_values(recipe)[key])})" if key else ""


def _weight_key(recipe: Recipe, term: str) -> str:
    """Empty for cross-entropy, which has none."""
    section = _section(term)
    return f"{section}.weight" if section in method_names(recipe) else ""


def _section(term: str) -> str:
    return "trades" if term == "classification" else term
