from dataclasses import replace

import pytest

from training.attacks import build_attack
from training.config import load_recipe, recipe_from_dict, recipe_names, recipe_to_dict
from training.data import DATASETS
from training.losses import build_terms
from training.models import build_model

CIFAR10 = ("cifar10-at", "cifar10-tla", "cifar10-sar", "cifar10-tla-sar")


def test_the_recipes_of_the_documents_are_there() -> None:
    assert {"digits", "mnist", *CIFAR10, "cifar10-small-tla-sar"} <= set(recipe_names())


def test_the_cifar10_recipes_differ_in_the_loss_alone() -> None:
    plain = load_recipe("cifar10-at")
    for name in CIFAR10:
        recipe = load_recipe(name)
        assert replace(recipe, tla=plain.tla, sar=plain.sar) == plain
        assert (recipe.tla.weight > 0, recipe.sar.weight > 0) == ("tla" in name, "sar" in name)


@pytest.mark.parametrize("name", recipe_names())
def test_each_recipe_can_be_built(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.data.set in DATASETS
    build_model(recipe.model, *((3, 32, 32) if "cifar10" in name else (1, 28, 28)), classes=10)
    build_attack(recipe.attack)
    build_terms(recipe)
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe
