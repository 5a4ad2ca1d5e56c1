"""How messages tell of values that should have been others."""

from collections.abc import Mapping, Sequence

from training.spelling import toml_value

__all__ = ["differences", "listed"]

MOST = 8


def differences(expected: Mapping[str, object], got: Mapping[str, object]) -> str:
    """The values that differ, as TOML spells them; empty when none does.

    >>> differences({"train.epochs": 2, "train.flip": False}, {"train.epochs": 3, "train.flip": False})
    'train.epochs = 3 (expected 2)'
    """
    keys = [key for key in {**expected, **got} if expected.get(key) != got.get(key)]
    return listed([f"{key} = {_spelled(got, key)} (expected {_spelled(expected, key)})" for key in keys])


def listed(texts: Sequence[str]) -> str:
    """The first of them, and how many more there are.

    >>> listed([str(number) for number in range(10)])
    '0, 1, 2, 3, 4, 5, 6, 7, and 2 more'
    """
    more = [f"and {len(texts) - MOST} more"] if len(texts) > MOST else []
    return ", ".join([*texts[:MOST], *more])


def _spelled(values: Mapping[str, object], key: str) -> str:
    return toml_value(values[key]) if key in values else "none"
