"""Checks of a recipe's values."""

import math

from service.errors import SetupError

__all__ = ["at_least", "require"]


def require(holds: bool, key: str, expected: str, value: object) -> None:
    """Refuses a value.

    Raises:
        SetupError: `holds` is False; names the key, what was expected and what came.
    """
    if not holds:
        raise SetupError(f"{key}: expected {expected}, got {value!r}")


def at_least(low: float, key: str, value: float) -> None:
    """Refuses a number below `low`, infinite or NaN.

    Raises:
        SetupError: as for require.
    """
    require(math.isfinite(value) and value >= low, key, f"a number of at least {low:g}", value)
