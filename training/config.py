"""Recipes: TOML plus `section.key=value` overrides, to frozen dataclasses and back."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from service.errors import SetupError
from training.effects import check_effects
from training.methods import (
    AttackConfig,
    AveragingConfig,
    AwpConfig,
    PairingConfig,
    SarConfig,
    TlaConfig,
    TradesConfig,
)
from training.methods_metric import MetricConfig, check_beside_metric
from training.sections import DataConfig, ExportConfig, ModelConfig, TrainConfig
from training.spelling import toml_value

__all__ = [
    "AttackConfig",
    "AveragingConfig",
    "AwpConfig",
    "DataConfig",
    "ExportConfig",
    "MetricConfig",
    "ModelConfig",
    "PairingConfig",
    "Recipe",
    "SarConfig",
    "TlaConfig",
    "TradesConfig",
    "TrainConfig",
    "exported_as",
    "load_recipe",
    "read_shipped",
    "recipe_from_dict",
    "recipe_names",
    "recipe_to_dict",
    "recipe_to_toml",
    "recipe_values",
]

RECIPES = Path(__file__).parent / "recipes"
Section = TypeVar("Section")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a run depends on, beside the code and the data."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    attack: AttackConfig
    tla: TlaConfig
    sar: SarConfig
    pairing: PairingConfig
    trades: TradesConfig
    metric: MetricConfig
    awp: AwpConfig
    averaging: AveragingConfig
    export: ExportConfig

    def __post_init__(self) -> None:
        augments = [key for key in AUGMENTATIONS if getattr(self.train, key)]
        if self.attack.renew_epochs and augments:
            raise SetupError(
                f"attack.renew_epochs: expected 0 with train.{augments[0]}, got {self.attack.renew_epochs}; "
                "a perturbation follows its image through train.shift only"
            )
        for name in ("sar", "pairing", "trades"):
            weight = getattr(self, name).weight
            if weight and self.attack.name == "none":
                raise SetupError(
                    f'{name}.weight: expected 0 with attack.name = "none", got {weight:g}; it compares clean with '
                    "attacked images, so choose an attack or leave it out"
                )
        for name, key in STARTS:
            start = getattr(getattr(self, name), key)
            if start >= self.train.epochs:
                raise SetupError(
                    f"{name}.{key}: expected less than train.epochs, {self.train.epochs}, got {start:g}; "
                    "it would never come to its full effect"
                )
        check_beside_metric(self)


AUGMENTATIONS = ("rotate", "zoom", "brightness", "contrast", "flip")
STARTS = (
    ("sar", "start_epoch"),
    ("pairing", "start_epoch"),
    ("awp", "start_epoch"),
    ("averaging", "start_epoch"),
    ("attack", "warmup_epochs"),
)
SECTIONS: Mapping[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "attack": AttackConfig,
    "tla": TlaConfig,
    "sar": SarConfig,
    "pairing": PairingConfig,
    "trades": TradesConfig,
    "metric": MetricConfig,
    "awp": AwpConfig,
    "averaging": AveragingConfig,
    "export": ExportConfig,
}


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def read_shipped(name: str) -> str:
    """The file of a recipe that comes with the package.

    Raises:
        SetupError: there is none of this name.
    """
    if name not in recipe_names():
        raise SetupError(f"recipe {name}: expected one of {', '.join(recipe_names())}, found none of that name")
    return (RECIPES / f"{name}.toml").read_text(encoding="utf-8")


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a file, or by its bare name from training/recipes.

    Args:
        path_or_name: path of a TOML file, or a name such as `digits`.
        overrides: `section.key=value`; the value is TOML, a bare word is a string.

    Raises:
        SetupError: no such recipe, broken TOML, an unknown key, a value of the wrong type or range, or a key without
            effect (training.effects).
    """
    path = _find(str(path_or_name))
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SetupError(f"{path}: expected a recipe in TOML, got: {error}") from error
    written = _keys(table)
    overridden = [_override(table, override) for override in overrides]
    recipe = recipe_from_dict(table)
    check_effects(recipe_values(recipe), written, overridden)
    return recipe


def exported_as(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The recipe of a finished run with other values of its section `export`.

    Args:
        overrides: `export.key=value`.

    Raises:
        SetupError: a key of another section, which training has settled; else as for load_recipe.
    """
    table: dict[str, Any] = dict(recipe_to_dict(recipe))
    for override in overrides:
        key = _override(table, override)
        if not key.startswith("export."):
            raise SetupError(
                f"{key}: expected a key of [export], got one that the training of the run has settled; "
                "`advsentry-train fit` begins another run"
            )
    return recipe_from_dict(table)


def _keys(table: Mapping[str, object]) -> list[str]:
    return [f"{name}.{key}" for name, section in table.items() if isinstance(section, dict) for key in section]


def _find(path_or_name: str) -> Path:
    shipped = RECIPES / f"{path_or_name}.toml"
    if "/" not in path_or_name and shipped.exists():
        return shipped
    path = Path(path_or_name)
    if path.is_file():
        return path
    raise SetupError(
        f"recipe {path_or_name}: expected a TOML file or one of {', '.join(recipe_names())}, found neither"
    )


def _override(table: dict[str, Any], override: str) -> str:
    """Sets one value; gives its `section.key`."""
    name, equals, text = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise SetupError(f"override {override!r}: expected section.key=value in one word, such as train.epochs=5")
    _known(section, SECTIONS, "section")
    place = table.setdefault(section, {})
    if not isinstance(place, dict):
        raise SetupError(f"{section}: expected a table of keys, got {place!r}")
    place[key] = _value(text.strip())
    return f"{section}.{key}"


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _known(name: str, names: Mapping[str, object] | Sequence[str], what: str) -> None:
    if name not in names:
        # Keys are compared without their section, which they share.
        own = {known.rpartition(".")[2]: known for known in names}
        near = get_close_matches(name.rpartition(".")[2], list(own), n=1)
        hint = f"the nearest known one is {own[near[0]]}" if near else f"expected one of {', '.join(own)}"
        raise SetupError(f"{name}: unknown {what}; {hint}")


def recipe_from_dict(table: Mapping[str, object]) -> Recipe:
    """The recipe that a parsed TOML file describes; missing keys take their defaults.

    Raises:
        SetupError: as for load_recipe.
    """
    for name in table:
        _known(name, SECTIONS, "section")
    parts: dict[str, Any] = {name: _section(name, kind, table.get(name, {})) for name, kind in SECTIONS.items()}
    return Recipe(**parts)


def _section(section: str, kind: type[Section], table: object) -> Section:
    if not isinstance(table, Mapping):
        raise SetupError(f"{section}: expected a table of keys, got {table!r}")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    types = get_type_hints(kind)
    for key in table:
        _known(f"{section}.{key}", [f"{section}.{name}" for name in known], "key")
    for name, field in known.items():
        if name not in table and _is_required(field):
            raise SetupError(f"{section}.{name}: expected a value, got none; the recipe must set it")
    return kind(**{key: _typed(f"{section}.{key}", types[key], value) for key, value in table.items()})


def _is_required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _typed(key: str, kind: Any, value: object) -> object:
    """The value as the field's type has it, or a SetupError that names the key."""
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_typed(key, get_args(kind)[0], item) for item in value)
    if get_origin(kind) is Literal and type(value) in {type(choice) for choice in get_args(kind)}:
        if value in get_args(kind):
            return value
    elif kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        return _number(key, value)
    elif kind in (bool, int, str) and type(value) is kind:
        return value
    example = f", such as '{key}=[\"{get_args(get_args(kind)[0])[0]}\"]'" if _is_list_of_choices(kind) else ""
    raise SetupError(f"{key}: expected {_describe(kind)}{example}, got {value!r}")


def _is_list_of_choices(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal


def _number(key: str, value: float | str) -> float:
    if not isinstance(value, str):
        return float(value)
    try:
        return float(Fraction(value))
    except (ValueError, ZeroDivisionError) as error:
        raise SetupError(f"{key}: expected a number or a fraction such as 8/255, got {value!r}") from error


def _describe(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"a list, each {_describe(get_args(kind)[0])}"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(str(choice) for choice in get_args(kind))}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}[kind]


def recipe_to_dict(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Plain tables of all keys, defaults included; recipe_from_dict is its inverse."""
    return {name: _table(getattr(recipe, name)) for name in SECTIONS}


def _table(section: Any) -> dict[str, Any]:
    values = {field.name: getattr(section, field.name) for field in fields(section)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def recipe_to_toml(recipe: Recipe) -> str:
    """The effective recipe as TOML; reading it back gives an equal recipe."""
    blocks = [
        "\n".join([f"[{name}]", *(f"{key} = {toml_value(value)}" for key, value in table.items())])
        for name, table in recipe_to_dict(recipe).items()
    ]
    return "\n\n".join(blocks) + "\n"


def recipe_values(recipe: Recipe) -> dict[str, object]:
    """Every value of a recipe, by `section.key`."""
    return {f"{name}.{key}": value for name, table in recipe_to_dict(recipe).items() for key, value in table.items()}
