import json
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.errors import SetupError
from training.attacks import Pgd
from training.checkpoint import CHECKPOINT, load_run, read_checkpoint
from training.config import Recipe, load_recipe, recipe_from_dict
from training.fit import Outcome, fit
from training.loop import Loop
from training.precision import autocast, deterministic

CPU = torch.device("cpu")


def tiny(**train: object) -> Recipe:
    return recipe_from_dict(
        {
            "data": {
                "set": "digits",
                "train": 200,
                "selection": 30,
                "fit": 20,
                "calibration": 20,
                "fusion": 20,
            },
            "export": {"default_alpha": 0.1},
            "model": {"width": 4, "embedding_dim": 8},
            "train": {"epochs": 2, "batch_size": 50, "shift": 1, "threads": 1, **train},
            "attack": {"eps": 0.1, "steps": 1},
            "tla": {"weight": 0.5, "pool": 16},
        }
    )


def without_tla(recipe: Recipe) -> Recipe:
    return replace(recipe, tla=replace(recipe.tla, weight=0.0))


def weights(run: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = read_checkpoint(run)["loop"]["model"]
    return loaded


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def at_step(step: int, act: Callable[[], object]) -> Callable[[Loop], None]:
    def on_step(loop: Loop) -> None:
        if loop.steps_done == step:
            act()

    return on_step


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert fit(tiny(), None, run, device=CPU) is Outcome.FINISHED
    return run


@pytest.mark.parametrize("step", [2, 4, 7], ids=["first epoch", "end of epoch", "second epoch"])
def test_an_interrupted_run_ends_in_the_same_weights(finished: Path, tmp_path: Path, step: int) -> None:
    assert fit(tiny(), None, tmp_path, device=CPU, on_step=at_step(step, interrupt)) is Outcome.INTERRUPTED
    stopped = read_checkpoint(tmp_path)["loop"]
    assert stopped["epoch"] * 4 + stopped["batch"] == step
    assert fit(tiny(), None, tmp_path, device=CPU) is Outcome.FINISHED
    assert same(weights(tmp_path), weights(finished))
    assert same(read_checkpoint(tmp_path)["loop"]["best"]["model"], read_checkpoint(finished)["loop"]["best"]["model"])


def test_a_killed_run_goes_on_from_its_last_checkpoint(finished: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        fit(tiny(), None, tmp_path, device=CPU, on_step=at_step(6, kill))
    assert read_checkpoint(tmp_path)["loop"]["epoch"] == 1
    assert fit(tiny(), None, tmp_path, device=CPU) is Outcome.FINISHED
    assert same(weights(tmp_path), weights(finished))
    assert len((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_a_run_killed_before_its_first_checkpoint_starts_anew(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fit(tiny(), None, tmp_path, device=CPU, on_step=lambda loop: print(1 // 0))
    assert not (tmp_path / CHECKPOINT).exists()
    assert fit(tiny(), None, tmp_path, device=CPU) is Outcome.FINISHED
    assert same(weights(tmp_path), weights(finished))


def test_an_interrupt_at_the_last_step_finishes(tmp_path: Path) -> None:
    recipe = tiny(epochs=1)
    assert fit(recipe, None, tmp_path, device=CPU, on_step=at_step(4, interrupt)) is Outcome.FINISHED


def test_signal_handlers_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    fit(tiny(epochs=1), None, tmp_path, device=CPU, on_step=at_step(1, interrupt))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_one_seed_gives_one_model(finished: Path, tmp_path: Path) -> None:
    fit(tiny(), None, tmp_path / "again", device=CPU)
    fit(tiny(seed=1, epochs=1), None, tmp_path / "other", device=CPU)
    assert same(weights(tmp_path / "again"), weights(finished))
    assert not same(weights(tmp_path / "other"), weights(finished))


def test_a_finished_run_is_left_alone(finished: Path) -> None:
    before = (finished / CHECKPOINT).read_bytes()
    assert fit(tiny(), None, finished, device=CPU) is Outcome.ALREADY_FINISHED
    assert (finished / CHECKPOINT).read_bytes() == before


def test_a_run_keeps_its_recipe_and_a_line_an_epoch(finished: Path) -> None:
    assert load_recipe(finished / "recipe.toml") == tiny()
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert line["measured_on"] == "selection"
        assert 0 <= line["attacked_accuracy"] <= line["clean_accuracy"] <= 1
        assert line["images_per_second"] > 0
        assert line["seconds"] > 0
    assert sorted(path.name for path in finished.iterdir()) == [CHECKPOINT, "log.jsonl", "recipe.toml"]


def test_another_recipe_in_the_same_place_is_refused(finished: Path) -> None:
    told = (
        f"{finished}: expected a run of this recipe, got one with train.learning_rate = 0.1 (expected 0.2), "
        f"tla.weight = 0.5 (expected 0.0); choose another --out, or go on with that run by the recipe {finished}/recipe"
    )
    with pytest.raises(SetupError, match=re.escape(told)):
        fit(without_tla(tiny(learning_rate=0.2)), None, finished, device=CPU)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("data", {"set": "digit"}, r"data\.set: expected one of digits, mnist, .*got 'digit'"),
        ("model", {"name": "cnn"}, r"model\.name: expected one of small_cnn, wide_resnet, .*got 'cnn'"),
        ("model", {"name": "wide_resnet"}, r"model\.depth: expected 6n \+ 4 for wide_resnet"),
        ("attack", {"name": "gpd"}, r"attack\.name: expected one of pgd, fgsm, n_fgsm or none, got 'gpd'"),
        ("export", {"detectors": ("gausian",)}, r"export\.detectors: expected some of gaussian, .*got 'gausian'"),
    ],
    ids=["data", "model", "depth", "attack", "detector"],
)
def test_a_wrong_value_is_told_before_the_run_is_compared(
    finished: Path, section: str, changes: dict[str, Any], message: str
) -> None:
    recipe = tiny()
    with pytest.raises(SetupError, match=f"^{message}"):
        fit(replace(recipe, **{section: replace(getattr(recipe, section), **changes)}), None, finished, device=CPU)


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(SetupError, match="expected a run directory or an empty one"):
        fit(tiny(), None, tmp_path, device=CPU)


def test_the_time_limit_ends_a_run_after_an_epoch(tmp_path: Path) -> None:
    assert fit(tiny(epochs=50, max_minutes=1e-6), None, tmp_path, device=CPU) is Outcome.FINISHED
    assert read_checkpoint(tmp_path)["loop"]["epoch"] == 1


@pytest.mark.parametrize("attack", ["none", "n_fgsm", "fgsm"])
def test_every_training_attack_runs(tmp_path: Path, attack: str) -> None:
    recipe = tiny(epochs=1)
    recipe = replace(recipe, attack=replace(recipe.attack, name=attack))
    assert fit(recipe, None, tmp_path, device=CPU) is Outcome.FINISHED


def test_a_run_whose_loss_is_lost_stops_and_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(
        SetupError,
        match=r"finite loss, got nan in epoch \d+, batch \d+; not finite: cross-entropy.*TLA.*; lower train\.learn",
    ):
        fit(tiny(learning_rate=1e30), None, tmp_path, device=CPU)
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("export", {"detectors": ("gausian",)}, r"export\.detectors: expected some of gaussian, .*got 'gausian'"),
        ("export", {"default_alpha": 0.01}, r"data\.fusion: expected at least 99 images .* 0\.01, got 20"),
        ("data", {"fit": 9}, r"class \d has 0 images to fit detectors on.*enlarge data\.fit"),
    ],
    ids=["detector", "alpha", "class"],
)
def test_what_could_not_be_exported_is_not_trained(
    tmp_path: Path, section: str, changes: dict[str, Any], message: str
) -> None:
    recipe = tiny()
    recipe = replace(recipe, **{section: replace(getattr(recipe, section), **changes)})
    with pytest.raises(SetupError, match=message):
        fit(recipe, None, tmp_path / "run", device=CPU)
    assert not (tmp_path / "run").exists()


def test_training_without_selection_keeps_the_last_epoch(tmp_path: Path) -> None:
    recipe = tiny(epochs=1, optimiser="adam", learning_rate=0.01, schedule="cosine", precision="float32")
    fit(replace(recipe, data=replace(recipe.data, selection=0)), None, tmp_path, device=CPU)
    assert load_run(tmp_path).epoch == 1
    assert same(dict(load_run(tmp_path).model.state_dict()), weights(tmp_path))


def test_training_learns(tmp_path: Path) -> None:
    recipe = without_tla(tiny(epochs=12, batch_size=25))
    recipe = replace(
        recipe,
        model=replace(recipe.model, width=8, embedding_dim=64),
        attack=replace(recipe.attack, eps=0.03),
    )
    fit(recipe, None, tmp_path, device=CPU)
    log = read_checkpoint(tmp_path)["loop"]["log"]
    assert log[-1]["clean_accuracy"] > 0.6
    assert log[-1]["loss"] < log[0]["loss"]


def test_a_run_gives_its_best_epoch_and_its_parts(finished: Path) -> None:
    run = load_run(finished)
    best = read_checkpoint(finished)["loop"]["best"]
    assert run.epoch == best["epoch"]
    assert same(dict(run.model.state_dict()), best["model"])
    assert run.recipe == tiny()
    assert run.input_shape == (8, 8, 1)
    assert run.class_names == tuple("0123456789")
    assert not run.model.training
    assert not any(parameter.requires_grad for parameter in run.model.parameters())
    parts = run.parts(None)
    assert [len(parts.train), len(parts.fit), len(parts.test)] == [200, 20, 1797 - 290]


def write_set(path: Path, seed: int) -> Path:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(60) % 3
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    return path


def test_other_data_are_refused(tmp_path: Path) -> None:
    recipe = tiny(epochs=2, batch_size=15)
    recipe = replace(recipe, data=replace(recipe.data, set="npz", train=0, fit=6, calibration=5, fusion=9, selection=5))
    first, other = write_set(tmp_path / "first.npz", 1), write_set(tmp_path / "other.npz", 2)
    run = tmp_path / "run"
    assert fit(recipe, first, run, device=CPU, on_step=at_step(1, interrupt)) is Outcome.INTERRUPTED
    with pytest.raises(SetupError, match="expected the data that the run began with"):
        fit(recipe, other, run, device=CPU)
    with pytest.raises(SetupError, match="expected a finished run, got 0 of 2 epochs"):
        load_run(run)
    fit(recipe, first, run, device=CPU)
    with pytest.raises(SetupError, match="expected the data that the run was trained on"):
        load_run(run).parts(other)


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"nowhere: expected a run directory with checkpoint\.pt"):
        load_run(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["cut", "other file", "other format", "other weights", "no average", "no loop"])
def test_a_damaged_checkpoint_is_named(finished: Path, tmp_path: Path, damage: str) -> None:
    content = (finished / CHECKPOINT).read_bytes()
    path = tmp_path / CHECKPOINT
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "other file":
        path.write_bytes(b"no checkpoint")
    elif damage == "other format":
        torch.save({"format": 99}, path)
    else:
        changed = read_checkpoint(finished)
        if damage == "other weights":
            del changed["loop"]["best"]["model"]["head.weight"]
        elif damage == "no average":
            del changed["loop"]["best_averaged"]
        else:
            changed["loop"] = None
        torch.save(changed, path)
    with pytest.raises(
        SetupError, match=r"checkpoint\.pt: expected .*; put a good copy back, or begin anew in another folder with"
    ):
        load_run(tmp_path)


def test_bf16_passes_without_gradient_do_not_take_it_from_later_ones() -> None:
    layer = torch.nn.Linear(3, 2)
    with autocast(CPU, bf16=True):
        with torch.no_grad():
            layer(torch.ones(1, 3))
        layer(torch.ones(1, 3)).sum().backward()  # type: ignore[no-untyped-call]
    assert layer.weight.grad is not None


def test_settings_of_torch_come_back() -> None:
    before = torch.get_num_threads()
    with deterministic(1):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == before


def test_the_budget_rises_from_nothing_over_the_warm_up(tmp_path: Path) -> None:
    recipe = tiny()  # 4 steps an epoch
    recipe = replace(recipe, attack=replace(recipe.attack, warmup_epochs=1.5, step=0.05))
    seen: list[tuple[float, float]] = []

    def on_step(loop: Loop) -> None:
        attack = loop.attacks.at(loop.steps_done)  # that of the step to come
        assert isinstance(attack, Pgd)
        seen.append((attack.eps, attack.step))

    fit(recipe, None, tmp_path, on_step=on_step)
    assert [eps for eps, _ in seen[:6]] == pytest.approx([0.1 * (step + 1) / 6 for step in range(1, 6)] + [0.1])
    assert seen[0][1] == pytest.approx(0.05 * 2 / 6)
