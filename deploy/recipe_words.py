"""What a result's recipe sets to other values than the defaults."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from training.config import SECTIONS
from training.spelling import toml_value

__all__ = ["recipe_words", "set_values"]


def set_values(recipe: Mapping[str, Any]) -> dict[str, object]:
    """By `section.key`; keys that are younger than the result count as defaults."""
    values: dict[str, object] = {}
    for name, table in recipe.items():
        defaults = {field.name: field.default for field in dataclasses.fields(SECTIONS[name])}
        for key, value in table.items():
            given = tuple(value) if isinstance(value, list) else value
            if given != defaults.get(key, dataclasses.MISSING):
                values[f"{name}.{key}"] = value
    return values


def recipe_words(recipe: Mapping[str, Any]) -> str:
    """As overrides of the command line are written."""
    return f"`{' '.join(f'{key}={toml_value(value)}' for key, value in set_values(recipe).items())}`"
