"""Figures of several runs under the names of their folders; seeds of one recipe as mean and deviation."""

import re
import statistics
from collections.abc import Mapping, Sequence

from service.errors import SetupError
from training.checkpoint import Run
from training.config import recipe_values
from training.differences import differences

__all__ = ["over_seeds", "run_names"]

NAME = re.compile(r"(?P<group>.+)-s\d+")
Values = Mapping[str, object]


def run_names(runs: Sequence[Run]) -> list[str]:
    """Of the folders, which must differ.

    Raises:
        SetupError: two are the same.
    """
    names = [run.path.resolve().name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise SetupError(f"expected runs of different names, got {name} twice; rename one")
    return names


def over_seeds(figures: Mapping[str, Mapping[str, float]], runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """NAME-mean and NAME-sd in place of the runs NAME-sSEED, where there are several; other runs as they are.

    Args:
        figures: of each run, by name.
        runs: in the same order.

    Raises:
        SetupError: runs of one name differ in more than train.seed, and the seed of the run that they began from.
    """
    groups: dict[str, list[str]] = {}
    for name in figures:
        match = NAME.fullmatch(name)
        groups.setdefault(match["group"] if match else name, []).append(name)
    recipes = {name: recipe_values(run.recipe) for name, run in zip(figures, runs, strict=True)}
    made: dict[str, dict[str, float]] = {}
    for group, names in groups.items():
        if len(names) == 1:
            made[names[0]] = dict(figures[names[0]])
            continue
        first, *others = (_of_any_seed(recipes[name]) for name in names)
        for other in others:
            if different := differences(first, other):
                raise SetupError(f"{group}: expected seeds of one recipe, got one with {different}; rename a run")
        for what, of in (("mean", statistics.mean), ("sd", statistics.stdev)):
            made[f"{group}-{what}"] = {
                figure: of([figures[name][figure] for name in names]) for figure in figures[names[0]]
            }
    return made


def _of_any_seed(values: Values) -> Values:
    start = NAME.fullmatch(str(values["train.start_from"]))
    begun = {"train.start_from": start["group"]} if start else {}
    return {**values, "train.seed": None, **begun}
