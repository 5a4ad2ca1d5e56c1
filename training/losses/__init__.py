"""Training losses. A new one: one file, one line in LOSSES, one row in its test table."""

from collections.abc import Callable, Mapping
from functools import partial

from training.config import Recipe
from training.losses.alignment import LogitAlignment
from training.losses.cross_entropy import AttackedCrossEntropy
from training.losses.metric import Metric
from training.losses.pairing import logit_distance
from training.losses.protocol import LossTerm, TrainingStep, Views
from training.losses.remembering import load_term_states, term_states
from training.losses.sar import spectral_distance
from training.losses.tla import Tla
from training.losses.together import see_together
from training.losses.trades import Trades
from training.losses.weighted import Weighted

__all__ = [
    "LOSSES",
    "LossTerm",
    "TrainingStep",
    "Views",
    "build_terms",
    "load_term_states",
    "see_together",
    "term_states",
]


def _classification(recipe: Recipe) -> LossTerm | None:
    if recipe.metric.is_alone:
        return None
    smoothing = recipe.train.label_smoothing
    term: LossTerm = AttackedCrossEntropy(label_smoothing=smoothing)
    if recipe.trades.weight:
        term = Trades(weight=recipe.trades.weight, label_smoothing=smoothing)
    weight = recipe.metric.classification_weight if recipe.metric.weight else 1.0
    return term if weight == 1 else Weighted(weight=weight, term=term)


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
        noise=recipe.attack.eps if config.own_noise and recipe.attack.norm == "linf" else 0.0,
        switched=config.switched,
    )


def _sar(recipe: Recipe) -> LossTerm | None:
    config = recipe.sar
    if config.weight == 0:
        return None
    return LogitAlignment(
        weight=config.weight,
        distance=partial(spectral_distance, form=config.form),
        start_epoch=config.start_epoch,
        stop_gradient=config.stop_gradient,
    )


def _pairing(recipe: Recipe) -> LossTerm | None:
    config = recipe.pairing
    if config.weight == 0:
        return None
    return LogitAlignment(
        weight=config.weight,
        distance=partial(logit_distance, distance=config.distance),
        start_epoch=config.start_epoch,
        stop_gradient=config.stop_gradient,
    )


def _metric(recipe: Recipe) -> LossTerm | None:
    return Metric(recipe.metric, recipe.attack.norm, recipe.attack.eps) if recipe.metric.weight else None


LOSSES: Mapping[str, Callable[[Recipe], LossTerm | None]] = {
    "classification": _classification,
    "tla": _tla,
    "sar": _sar,
    "pairing": _pairing,
    "metric": _metric,
}


def build_terms(recipe: Recipe) -> dict[str, LossTerm]:
    """The classification loss, if any, and the terms that have a weight above 0, by name, in the order of LOSSES."""
    built = {name: build(recipe) for name, build in LOSSES.items()}
    return {name: term for name, term in built.items() if term is not None}
