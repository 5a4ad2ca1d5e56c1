"""How the values of a recipe are written."""

import json

__all__ = ["budget_words", "toml_value"]


def toml_value(value: object) -> str:
    """A value of a recipe as TOML spells it."""
    # JSON's numbers, strings and lists of strings are TOML's too, and repr of a float reads back exactly.
    return json.dumps(value, ensure_ascii=False)


def budget_words(eps: float) -> str:
    """A budget as a fraction of 8-bit levels where it is one of fewer than 32, as papers write it; else a number."""
    levels = round(eps * 255)
    return f"{levels}/255" if 0 < levels < 32 and abs(levels / 255 - eps) < 1e-9 else f"{eps:g}"
