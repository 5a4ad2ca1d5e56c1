"""Refuses keys that would have no effect, so that nobody trains another method than the one asked for.

Only what somebody set beside a method that is off by mistake: a file that itself switches a method off may keep the
method's other keys, as the recipe.toml of a run does, and so may a file whose method the command line switches off.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from service.errors import SetupError
from training.spelling import toml_value

__all__ = ["check_effects"]

Switch = tuple[str, Callable[[Any], bool], str]
"""A key, whether one of its values lets another key have an effect, and those values in words."""

_ATTACKS: Switch = ("attack.name", lambda name: name != "none", "an attack")
SWITCHES: Mapping[str, Switch] = {
    **{name: (f"{name}.weight", bool, "above 0") for name in ("tla", "sar", "pairing", "awp", "metric")},
    "averaging": ("averaging.kind", lambda kind: kind != "none", "swa or ema"),
    "averaging.decay": ("averaging.kind", lambda kind: kind == "ema", "ema"),
    "attack.step": _ATTACKS,
    "attack.warmup_epochs": _ATTACKS,
    "attack.steps": ("attack.name", lambda name: name == "pgd", "pgd"),
    **{
        f"metric.{key}": ("metric.attack", lambda attack: attack != "none", "a role or hardness")
        for key in ("steps", "step", "warmup_epochs", "clean_share")
    },
    **{
        f"metric.{key}": ("metric.attack", lambda attack: attack == "hardness", "hardness")
        for key in ("gamma", "loss_bound")
    },
    "attack.guard_steps": ("attack.guard", bool, "true"),
}
"""By `section.key`, or by section for all keys of one, which have that switch beside their own."""


def check_effects(values: Mapping[str, object], written: Collection[str], overridden: Collection[str]) -> None:
    """Checks a recipe that is otherwise valid.

    Args:
        values: of the recipe, by `section.key`.
        written: the keys that the file sets.
        overridden: the keys that the command line sets.

    Raises:
        SetupError: a key is set where it has no effect; names it and its switch.
    """
    for key, found in _switched([*overridden, *written]):
        switch, lets, wanted = found
        is_meant = switch in overridden or (key not in overridden and switch in written)
        if not is_meant and not lets(values[switch]):
            raise SetupError(
                f"{key}: expected {switch} to be {wanted}, without which it has no effect, "
                f"got {toml_value(values[switch])}; set {switch} too, or leave {key} out"
            )


def _switched(keys: Iterable[str]) -> Iterator[tuple[str, Switch]]:
    """Each key with each of its switches."""
    for key in keys:
        for name in (key, key.partition(".")[0]):
            if name in SWITCHES and SWITCHES[name][0] != key:
                yield key, SWITCHES[name]
