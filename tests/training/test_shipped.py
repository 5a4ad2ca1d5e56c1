"""`advsentry-train recipes`: the list, its JSON, and the file of one."""

import json

import pytest

from training.__main__ import main
from training.config import RECIPES, load_recipe, recipe_names
from training.method_names import method_names
from training.shipped import Shipped, shipped


def test_the_table_has_a_line_a_recipe_and_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    starts = [head.index(word) for word in head.split()]
    for line in lines:
        assert all(line[start - 2 : start] == "  " and line[start] != " " for start in starts[1:])
    (signs,) = (line for line in lines if line.startswith("gtsrb-tla-sar "))
    assert "gtsrb32" in signs
    assert "TLA + SAR + EMA" in signs
    assert "n_fgsm" in signs
    assert "linf 8/255" in signs
    assert signs.endswith("our default.")


def test_json_has_the_same_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert sorted(listed) == recipe_names()
    assert listed["gtsrb-at"] | {"description": ""} == {
        "name": "gtsrb-at",
        "data": "gtsrb32",
        "methods": [],
        "attack": "n_fgsm",
        "norm": "linf",
        "eps": 8 / 255,
        "description": "",
    }


def test_the_file_of_one_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "digits"]) == 0
    assert capsys.readouterr().out == (RECIPES / "digits.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["nowhere", "../recipes/digits"])
def test_an_unknown_name_lists_the_known(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", name]) == 1
    expected = f"recipe {name}: expected one of {', '.join(recipe_names())}, found none of that name"
    assert capsys.readouterr().err == f"advsentry-train: error: {expected}\n"


def test_json_goes_without_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "digits", "--json"]) == 1
    assert "--json: expected no NAME beside it, got digits" in capsys.readouterr().err


@pytest.mark.parametrize("one", shipped(), ids=lambda one: str(one.name))
def test_each_head_begins_with_a_sentence_that_fits_a_line(one: Shipped) -> None:
    assert one.description.endswith(".")
    assert len(one.description) <= 80
    assert "Command:" not in one.description


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["tla.weight=0"], []),
        (["tla.switched=true"], ["TLA-SA"]),
        (["tla.mine_by=random", "pairing.weight=1"], ["TLA-RN", "ALP"]),
        (["tla.weight=0", "pairing.weight=1", "pairing.distance=l1"], ["logit pairing"]),
        (["tla.weight=0", "trades.weight=6", "awp.weight=0.01", "averaging.kind=swa"], ["TRADES", "AWP", "SWA"]),
    ],
)
def test_methods_are_called_as_in_the_documents(overrides: list[str], names: list[str]) -> None:
    assert list(method_names(load_recipe("digits", overrides)).values()) == names


@pytest.mark.parametrize(
    ("overrides", "cells"),
    [
        (["attack.eps=0.2"], ("AT", "pgd, 5 steps", "linf 0.2")),
        (["averaging.kind=ema"], ("AT + EMA", "pgd, 5 steps", "linf 0.15")),
        (["attack.eps=0.5", "attack.norm=l2", "attack.name=fgsm"], ("AT", "fgsm", "l2 0.5")),
        (["attack.name=none"], ("natural", "none", "linf 0.15")),
    ],
)
def test_a_line_tells_attack_and_budget(overrides: list[str], cells: tuple[str, ...]) -> None:
    recipe = load_recipe("digits", ["tla.weight=0", *overrides])
    assert Shipped(name="x", recipe=recipe, description="").row()[2:5] == cells
