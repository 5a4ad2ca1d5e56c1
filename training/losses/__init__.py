"""Training losses. A new one: one file, one line in LOSSES, one row in its test table."""

from collections.abc import Callable, Mapping
from functools import partial

from training.config import Recipe
from training.losses.alignment import LogitAlignment
from training.losses.cross_entropy import AttackedCrossEntropy
from training.losses.pairing import logit_distance
from training.losses.protocol import LossTerm, TrainingStep, Views
from training.losses.sar import spectral_distance
from training.losses.tla import Tla
from training.losses.together import see_together
from training.losses.total import Wanted, total_loss, wanted_images
from training.losses.trades import Trades

__all__ = [
    "LOSSES",
    "LossTerm",
    "TrainingStep",
    "Views",
    "Wanted",
    "build_terms",
    "see_together",
    "total_loss",
    "wanted_images",
]


def _classification(recipe: Recipe) -> LossTerm:
    smoothing = recipe.train.label_smoothing
    if recipe.trades.weight:
        return Trades(weight=recipe.trades.weight, label_smoothing=smoothing)
    return AttackedCrossEntropy(label_smoothing=smoothing)


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


LOSSES: Mapping[str, Callable[[Recipe], LossTerm | None]] = {
    "classification": _classification,
    "tla": _tla,
    "sar": _sar,
    "pairing": _pairing,
}


def build_terms(recipe: Recipe) -> dict[str, LossTerm]:
    """The classification loss and the terms that the recipe gives a weight above 0, by name, in the order of LOSSES."""
    built = {name: build(recipe) for name, build in LOSSES.items()}
    return {name: term for name, term in built.items() if term is not None}
