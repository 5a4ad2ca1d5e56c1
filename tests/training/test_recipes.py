import pytest

from training.attacks import build_attack
from training.config import load_recipe, recipe_from_dict, recipe_names, recipe_to_dict
from training.data import DATASETS
from training.losses import build_terms
from training.models import build_model


def test_the_recipes_of_the_documents_are_there() -> None:
    assert {"digits", "mnist"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_each_recipe_can_be_built(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.data.set in DATASETS
    build_model(recipe.model, 1, 28, 28, classes=10)
    build_attack(recipe.attack)
    build_terms(recipe)
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe
