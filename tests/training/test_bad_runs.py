"""Runs that cannot go on: one line says why, and what was saved stays."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from service.errors import SetupError
from tests.training.test_fit import CPU, at_step, interrupt, same, tiny, weights
from training.__main__ import main
from training.checkpoint import CHECKPOINT, read_checkpoint
from training.config import Recipe, recipe_from_dict, recipe_to_dict, recipe_to_toml
from training.fit import Outcome, fit
from training.loop import Loop
from training.losses.tla import Tla
from training.lost import to_lower, told_terms


def with_npz(recipe: Recipe) -> Recipe:
    data = replace(recipe.data, set="npz", train=0, selection=0, fit=0, calibration=9, fusion=9)
    return replace(recipe, data=data, train=replace(recipe.train, batch_size=15))


def write_set(path: Path, labels: np.ndarray, *names: str) -> Path:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (len(labels), 8, 8, 1), dtype=np.uint8)
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels, class_names=names)
    return path


@pytest.mark.parametrize(
    ("text", "why"), [("[data", "expected a recipe in TOML"), ("[data]\n", "data.set: expected a value")]
)
def test_a_broken_recipe_of_the_run_itself_is_told_as_such(tmp_path: Path, text: str, why: str) -> None:
    stored = tmp_path / "recipe.toml"
    stored.write_text(text, encoding="utf-8")
    with pytest.raises(SetupError) as broken:
        fit(tiny(), None, tmp_path, device=CPU)
    told = str(broken.value)
    assert told.startswith(f"{stored}: expected the recipe that this run stored, got a broken one (")
    assert why in told
    assert told.endswith("; put a good copy back, or choose another --out")


def test_a_class_without_training_images_is_named(tmp_path: Path) -> None:
    path = write_set(tmp_path / "set.npz", np.arange(60) % 3, "cat", "dog", "emu", "fox")
    with pytest.raises(
        SetupError, match=r"set: expected training images of all 4 classes, got none of 'fox' \(3\); add"
    ):
        fit(with_npz(tiny()), path, tmp_path / "run", device=CPU)
    assert not (tmp_path / "run").exists()


def test_of_many_classes_without_training_images_the_first_are_named(tmp_path: Path) -> None:
    path = write_set(tmp_path / "set.npz", np.arange(60) % 3, *(str(label) for label in range(1000)))
    with pytest.raises(
        SetupError, match=r"of all 1000 classes, got none of '3' \(3\), .*, '10' \(10\), and 989 more; add"
    ):
        fit(with_npz(tiny()), path, tmp_path / "run", device=CPU)


def test_a_set_of_one_class_is_refused(tmp_path: Path) -> None:
    path = write_set(tmp_path / "set.npz", np.zeros(60, int), "cat")
    with pytest.raises(SetupError, match="set: expected two classes or more, got 1; add images of another class"):
        fit(with_npz(tiny()), path, tmp_path / "run", device=CPU)


def test_a_pool_of_one_class_is_one_line_and_keeps_the_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny(epochs=40)
    recipe = replace(recipe, tla=replace(recipe.tla, pool=2))  # sooner or later two images of one class
    run, file = tmp_path / "run", tmp_path / "recipe.toml"
    file.write_text(recipe_to_toml(recipe), encoding="utf-8")
    assert main(["fit", str(file), "--out", str(run)]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line)
    assert line == (
        "advsentry-train: error: tla.pool: expected images of another class among 2, got one class; enlarge the pool"
    )
    assert read_checkpoint(run)["loop"]["epoch"] >= 1


def poison(loop: Loop) -> None:
    with torch.no_grad():
        loop.model.head.weight.fill_(torch.nan)


@pytest.mark.parametrize(
    ("step", "what"),
    [
        (6, r"a finite loss, got nan in epoch 2, batch 3; not finite: .*"),
        (8, "finite weights, got others in epoch 2, batch 4; finite: .*"),
    ],
    ids=["loss", "last step of an epoch"],
)
def test_a_lost_run_keeps_its_last_good_checkpoint_and_can_go_on(tmp_path: Path, step: int, what: str) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"

    def on_step(loop: Loop) -> None:
        if loop.steps_done == step:
            poison(loop)

    with pytest.raises(SetupError, match=rf"expected {what}; checkpoint\.pt there keeps a good earlier step; lower"):
        fit(tiny(), None, run, device=CPU, on_step=on_step)
    assert read_checkpoint(run)["loop"]["epoch"] == 1
    fit(tiny(), None, run, device=CPU)
    fit(tiny(), None, whole, device=CPU)
    assert same(weights(run), weights(whole))


def test_the_term_that_is_not_finite_is_named_with_its_weight(tmp_path: Path) -> None:
    def spoil(loop: Loop) -> None:
        term = loop.terms["tla"]
        assert isinstance(term, Tla)
        loop.terms["tla"] = replace(term, margin=math.inf)

    with pytest.raises(SetupError) as lost:
        fit(tiny(), None, tmp_path, device=CPU, on_step=spoil)
    told = str(lost.value)
    assert "batch 2; not finite: TLA = inf (tla.weight = 0.5); finite: cross-entropy = " in told
    assert told.endswith("; lower train.learning_rate or tla.weight and choose another --out")


def test_a_weight_that_ruins_the_network_is_a_candidate(tmp_path: Path) -> None:
    recipe = tiny()
    with pytest.raises(SetupError, match=r"; lower train\.learning_rate or tla\.weight and choose another --out$"):
        fit(replace(recipe, tla=replace(recipe.tla, weight=1e38)), None, tmp_path, device=CPU)


@pytest.mark.parametrize(
    ("sections", "values", "told", "lower"),
    [
        (
            {"trades": {"weight": 6}, "sar": {"weight": 0.1}},
            {"classification": math.inf, "tla": 1.0, "sar": 0.25},
            "not finite: TRADES = inf (trades.weight = 6.0); finite: TLA = 1 (tla.weight = 0.5), "
            "SAR = 0.25 (sar.weight = 0.1)",
            "train.learning_rate or trades.weight",
        ),
        (
            {"pairing": {"weight": 1}},
            {"classification": 2.0, "tla": math.nan, "pairing": math.nan},
            "not finite: TLA = nan (tla.weight = 0.5), ALP = nan (pairing.weight = 1.0); finite: cross-entropy = 2",
            "train.learning_rate or tla.weight or pairing.weight",
        ),
        (
            {},
            {"classification": math.nan, "tla": math.nan},
            "not finite: cross-entropy = nan, TLA = nan (tla.weight = 0.5)",
            "train.learning_rate or tla.weight",
        ),
        (
            {"awp": {"weight": 0.5}},
            {"classification": 2.0, "tla": 1.0},
            "finite: cross-entropy = 2, TLA = 1 (tla.weight = 0.5)",
            "train.learning_rate or tla.weight or awp.weight",
        ),
    ],
    ids=["trades", "pairing", "all", "none"],
)
def test_terms_are_told_by_their_methods(
    sections: dict[str, dict[str, float]], values: dict[str, float], told: str, lower: str
) -> None:
    recipe = recipe_from_dict({**recipe_to_dict(tiny()), **sections})
    assert told_terms(recipe, values) == told
    assert to_lower(recipe, values) == lower


def test_a_run_lost_before_its_first_checkpoint_says_that_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="nothing was saved; lower"):
        fit(tiny(), None, tmp_path, device=CPU, on_step=poison)
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    assert fit(tiny(), None, run, device=CPU, on_step=at_step(4, interrupt)) is Outcome.INTERRUPTED
    return run


def test_the_checkpoint_of_another_recipe_is_not_resumed(begun: Path, tmp_path: Path) -> None:
    wider = tiny()
    wider = replace(wider, model=replace(wider.model, width=8))
    fit(wider, None, tmp_path / "other", device=CPU, on_step=at_step(4, interrupt))
    (begun / CHECKPOINT).write_bytes((tmp_path / "other" / CHECKPOINT).read_bytes())
    with pytest.raises(SetupError, match=r"of this run, got one with model\.width = 8 \(expected 4\); put the right"):
        fit(tiny(), None, begun, device=CPU)


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_weights_that_do_not_fit_are_not_resumed(begun: Path, damage: str) -> None:
    content = read_checkpoint(begun)
    if damage == "missing":
        del content["loop"]["model"]["head.weight"]
    else:
        content["loop"]["model"]["head.weight"] = torch.zeros(10, 9)
    torch.save(content, begun / CHECKPOINT)
    with pytest.raises(SetupError, match=r"checkpoint\.pt: expected weights of this run's small_cnn, got others; put"):
        fit(tiny(), None, begun, device=CPU)
