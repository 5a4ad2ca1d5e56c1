"""What the training methods of a recipe are called, as in the table of docs/training.md."""

from training.config import Recipe

__all__ = ["method_names"]


def method_names(recipe: Recipe) -> dict[str, str]:
    """Section to name, of each method that the recipe adds to plain adversarial training.

    >>> from training.config import load_recipe
    >>> method_names(load_recipe("gtsrb-tla-sar"))
    {'tla': 'TLA', 'sar': 'SAR', 'averaging': 'EMA'}
    """
    names = {
        "tla": _tla(recipe) if recipe.tla.weight else "",
        "sar": "SAR" if recipe.sar.weight else "",
        "pairing": _pairing(recipe) if recipe.pairing.weight else "",
        "trades": "TRADES" if recipe.trades.weight else "",
        "metric": _metric(recipe) if recipe.metric.weight else "",
        "awp": "AWP" if recipe.awp.weight else "",
        "averaging": recipe.averaging.kind.upper() if recipe.averaging.kind != "none" else "",
    }
    return {section: name for section, name in names.items() if name}


def _tla(recipe: Recipe) -> str:
    switched = "-SA" if recipe.tla.switched else ""
    return f"TLA{switched}-RN" if recipe.tla.mine_by == "random" else f"TLA{switched}"


def _metric(recipe: Recipe) -> str:
    robust = "" if recipe.metric.attack == "none" else f", {recipe.metric.attack} attacked"
    return f"{recipe.metric.loss} metric learning{robust}"


def _pairing(recipe: Recipe) -> str:
    return "ALP" if recipe.pairing.distance == "l2" else "logit pairing"
