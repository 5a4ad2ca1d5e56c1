"""The recipes that come with the package; the `recipes` command. Needs no torch."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import SetupError
from training.config import Recipe, load_recipe, read_shipped, recipe_names
from training.method_names import method_names
from training.spelling import budget_words

__all__ = ["Shipped", "aligned", "run_command", "shipped"]

HEADER = ("recipe", "data", "method", "attack", "budget", "description")


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """One of them."""

    name: str
    recipe: Recipe
    description: str
    """The first paragraph of its head comment."""

    def row(self) -> tuple[str, ...]:
        """Its cells, as HEADER has them."""
        attack = self.recipe.attack
        names = method_names(self.recipe)
        plain = ["AT" if attack.name != "none" else "natural"]
        methods = [*(plain if names.keys() <= {"awp", "averaging", "proxy"} else []), *names.values()]
        return (
            self.name,
            self.recipe.data.set,
            " + ".join(methods),
            f"{attack.name}, {attack.steps} steps" if attack.name == "pgd" else attack.name,
            f"{attack.norm} {budget_words(attack.eps)}",
            self.description,
        )

    def to_json(self) -> dict[str, Any]:
        """The same for programs; `methods` is empty for plain adversarial training."""
        attack = self.recipe.attack
        return {
            "name": self.name,
            "data": self.recipe.data.set,
            "methods": list(method_names(self.recipe).values()),
            "attack": attack.name,
            "norm": attack.norm,
            "eps": attack.eps,
            "description": self.description,
        }


def shipped() -> list[Shipped]:
    """All of them, by name."""
    return [
        Shipped(name=name, recipe=load_recipe(name), description=_description(read_shipped(name)))
        for name in recipe_names()
    ]


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Rows of equally many cells as lines whose columns stand below each other.

    >>> print(aligned([("a", "bc"), ("def", "g")]))
    a    bc
    def  g
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `recipes`; gives its exit status."""
    if arguments.name and arguments.json:
        raise SetupError(f"--json: expected no NAME beside it, got {arguments.name}; leave one of them out")
    if arguments.name:
        sys.stdout.write(read_shipped(arguments.name))
    elif arguments.json:
        sys.stdout.write(json.dumps([one.to_json() for one in shipped()]) + "\n")
    else:
        sys.stdout.write(aligned([HEADER, *(one.row() for one in shipped())]) + "\n")
    return 0


def _description(text: str) -> str:
    lines = []
    for line in text.splitlines():
        words = line.removeprefix("#").strip()
        if not line.startswith("#") or not words:
            break
        lines.append(words)
    return " ".join(lines)
