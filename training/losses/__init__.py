"""Training losses. A new one: one file, one line in LOSSES, one row in its test table."""

from collections.abc import Callable, Mapping

from training.config import Recipe
from training.losses.protocol import LossTerm, TrainingStep
from training.losses.tla import Tla

__all__ = ["LOSSES", "LossTerm", "TrainingStep", "build_terms"]


def _tla(recipe: Recipe) -> LossTerm | None:
    config = recipe.tla
    if config.weight == 0:
        return None
    return Tla(
        weight=config.weight,
        margin=config.margin,
        norm_weight=config.norm_weight,
        pool=config.pool,
        kinds=config.kinds,
        mine_by=config.mine_by,
        noise=recipe.attack.eps if recipe.attack.norm == "linf" else 0.0,
    )


LOSSES: Mapping[str, Callable[[Recipe], LossTerm | None]] = {"tla": _tla}


def build_terms(recipe: Recipe) -> list[LossTerm]:
    """The terms that the recipe gives a weight above 0, in the order of LOSSES."""
    built = (build(recipe) for build in LOSSES.values())
    return [term for term in built if term is not None]
