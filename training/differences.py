"""How messages tell of values that should have been others."""

from collections.abc import Mapping

from training.spelling import toml_value

__all__ = ["differences"]

MOST = 8


def differences(expected: Mapping[str, object], got: Mapping[str, object]) -> str:
    """The values that differ, as TOML spells them; empty when none does.

    >>> differences({"train.epochs": 2, "train.flip": False}, {"train.epochs": 3, "train.flip": False})
    'train.epochs = 3 (expected 2)'
    """
    keys = [key for key in {**expected, **got} if expected.get(key) != got.get(key)]
    told = [f"{key} = {_spelled(got, key)} (expected {_spelled(expected, key)})" for key in keys[:MOST]]
    if len(keys) > MOST:
        told.append(f"and {len(keys) - MOST} more")
    return ", ".join(told)


def _spelled(values: Mapping[str, object], key: str) -> str:
    return toml_value(values[key]) if key in values else "none"
