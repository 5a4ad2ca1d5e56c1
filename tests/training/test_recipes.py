from dataclasses import replace

import pytest

from training.attacks import build_attack
from training.config import load_recipe, recipe_from_dict, recipe_names, recipe_to_dict
from training.data import DATASETS
from training.losses import build_terms
from training.models import build_model

SETS = (
    ("mnist-at", "mnist-tla", "mnist-tla-sar"),
    ("gtsrb-at", "gtsrb-tla", "gtsrb-sar", "gtsrb-tla-sar"),
    ("cifar10-at", "cifar10-tla", "cifar10-sar", "cifar10-tla-sar"),
)


def test_the_recipes_of_the_documents_are_there() -> None:
    assert {"digits", "cifar10-small-tla-sar"}.union(*SETS) <= set(recipe_names())


@pytest.mark.parametrize("names", SETS, ids=lambda names: str(names[0]))
def test_the_recipes_of_a_set_differ_in_loss_and_averaging_alone(names: tuple[str, ...]) -> None:
    plain = load_recipe(names[0])
    averages_all = names[0] == "mnist-at"
    for name in names:
        recipe = load_recipe(name)
        same = {"tla": plain.tla, "sar": plain.sar, "averaging": plain.averaging, "export": plain.export}
        assert replace(recipe, **same) == plain
        assert (recipe.tla.weight > 0, recipe.sar.weight > 0) == ("tla" in name, "sar" in name)
        assert (recipe.averaging.kind != "none") == ("sar" in name or averages_all)


@pytest.mark.parametrize("name", ["mnist-metric", "gtsrb-metric"])
def test_the_recipes_of_metric_learning_differ_in_the_attack_on_tuples_alone(name: str) -> None:
    plain, robust = load_recipe(name), load_recipe(f"{name}-robust")
    assert replace(robust, metric=plain.metric) == plain
    assert (plain.metric.attack, robust.metric.attack) == ("none", "anchor")
    same = {key: getattr(plain.metric, key) for key in ("attack", "steps", "warmup_epochs")}
    assert replace(robust.metric, **same) == plain.metric
    assert plain.metric.is_alone


@pytest.mark.parametrize("name", recipe_names())
def test_each_recipe_can_be_built(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.data.set in DATASETS
    build_model(recipe.model, *((1, 28, 28) if recipe.data.set in ("digits", "mnist") else (3, 32, 32)), classes=10)
    build_attack(recipe.attack)
    build_terms(recipe)
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe
