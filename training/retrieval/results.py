"""The result file of `retrieve`: figures of each run, and mean and deviation over seeds."""

import re
import statistics
from collections.abc import Mapping, Sequence

from service.errors import SetupError
from training.checkpoint import Run
from training.config import recipe_values
from training.differences import differences

__all__ = ["over_seeds", "run_names"]

NAME = re.compile(r"(?P<group>.+)-s\d+")


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
    """NAME-mean and NAME-sd of the runs NAME-sSEED, where there are several; they must differ in train.seed alone.

    Args:
        figures: of each run, by name.
        runs: in the same order.

    Raises:
        SetupError: runs of one name have different recipes.
    """
    groups: dict[str, list[tuple[Run, Mapping[str, float]]]] = {}
    for run, (name, own) in zip(runs, figures.items(), strict=True):
        if match := NAME.fullmatch(name):
            groups.setdefault(match["group"], []).append((run, own))
    made: dict[str, dict[str, float]] = {}
    for group, members in groups.items():
        if len(members) < 2:
            continue
        first, *others = ({**recipe_values(run.recipe), "train.seed": None} for run, _ in members)
        for other in others:
            if different := differences(first, other):
                raise SetupError(f"{group}: expected seeds of one recipe, got one with {different}; rename a run")
        names = members[0][1]
        made[f"{group}-mean"] = {name: statistics.mean(own[name] for _, own in members) for name in names}
        made[f"{group}-sd"] = {name: statistics.stdev(own[name] for _, own in members) for name in names}
    return made
