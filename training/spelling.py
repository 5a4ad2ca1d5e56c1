"""How the values of a recipe are written."""

import json

__all__ = ["toml_value"]


def toml_value(value: object) -> str:
    """A value of a recipe as TOML spells it."""
    # JSON's numbers, strings and lists of strings are TOML's too, and repr of a float reads back exactly.
    return json.dumps(value, ensure_ascii=False)
