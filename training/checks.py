"""Checks of a recipe's values."""

import math
from collections.abc import Iterable

from service.errors import SetupError

__all__ = ["at_least", "one_of", "require"]


def require(holds: bool, key: str, expected: str, value: object) -> None:
    """Refuses a value.

    Raises:
        SetupError: `holds` is False; names the key, what was expected and what came.
    """
    if not holds:
        raise SetupError(f"{key}: expected {expected}, got {value!r}")


def one_of(names: Iterable[str], key: str, value: str) -> None:
    """Refuses an unknown name.

    Raises:
        SetupError: as for require.
    """
    require(value in names, key, f"one of {', '.join(names)}", value)


def at_least(low: float, key: str, value: float) -> None:
    """Refuses a number below `low`, infinite or NaN.

    Raises:
        SetupError: as for require.
    """
    require(math.isfinite(value) and value >= low, key, f"a number of at least {low:g}", value)
