"""Every method trains, resumes exactly, and at weight 0 is plain adversarial training, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from training.attacks import Pgd
from training.checkpoint import load_parts, load_run, read_checkpoint
from training.config import Recipe, recipe_from_dict
from training.data.augment import drawn_moves, moved
from training.data.batches import ImageSource, epoch_order
from training.fit import Outcome, fit
from training.loop import GENERATORS, Loop
from training.models import build_model
from training.optimiser import build_optimiser
from training.precision import autocast, deterministic, uses_bf16
from training.schedule import learning_rate

CPU = torch.device("cpu")

METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "tla": {"tla": {"weight": 0.5, "pool": 16, "margin": 0.2}},
    "tla-sa": {"tla": {"weight": 0.5, "pool": 16, "switched": True}},
    "tla-rn": {"tla": {"weight": 0.5, "pool": 16, "mine_by": "random"}},
    "sar": {"sar": {"weight": 0.06, "start_epoch": 1}},
    "sar-batch2d": {"sar": {"weight": 0.1, "form": "batch2d", "stop_gradient": True}},
    "pairing-l1": {"pairing": {"weight": 0.2, "distance": "l1"}},
    "alp": {"pairing": {"weight": 0.2, "distance": "l2", "stop_gradient": True}},
    "trades": {"trades": {"weight": 6.0}},
    "awp": {"awp": {"weight": 0.01}},
    "metric": {"metric": {"weight": 1.0, "attack": "anchor", "steps": 2}},
    "metric-hardness": {"metric": {"weight": 1.0, "attack": "hardness", "steps": 2, "ics_weight": 0.5}},
    "tla-sar": {"tla": {"weight": 0.5, "pool": 16, "own_noise": False}, "sar": {"weight": 0.06}},
}


def recipe(**sections: dict[str, Any]) -> Recipe:
    table: dict[str, dict[str, Any]] = {
        "data": {"set": "digits", "train": 200, "selection": 40, "fit": 20, "calibration": 20, "fusion": 20},
        "export": {"default_alpha": 0.1},
        "model": {"width": 4, "embedding_dim": 8},
        "train": {"epochs": 2, "batch_size": 50, "shift": 1, "threads": 1, "seed": 3},
        "attack": {"eps": 0.1, "steps": 2},
    }
    for name, section in sections.items():
        table[name] = {**table.get(name, {}), **section}
    return recipe_from_dict(table)


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read_checkpoint(run)["loop"]["model"]
    return found


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def plain_adversarial_training(given: Recipe) -> dict[str, torch.Tensor]:
    """Madry's training written out: no loop object, no terms."""
    _, parts = load_parts(given, None)
    source, seed = ImageSource(parts.train, CPU), given.train.seed
    torch.manual_seed(seed)
    model = build_model(given.model, 1, 8, 8, 10)
    optimiser = build_optimiser(given.train, model)
    generators = [torch.Generator().manual_seed(seed * len(GENERATORS) + number) for number in range(2)]
    attack = Pgd(eps=given.attack.eps, steps=given.attack.steps)
    batches = len(source) // given.train.batch_size
    with deterministic(1):
        for number in range(given.train.epochs * batches):
            epoch, batch = divmod(number, batches)
            order = epoch_order(len(source), seed, epoch)[batch * given.train.batch_size :][: given.train.batch_size]
            moves = drawn_moves(len(order), given.train.shift, generators[0])
            images = moved(source.take(order), moves)
            labels = source.labels[order]
            with autocast(CPU, bf16=uses_bf16(given.train.precision, CPU)):
                attacked = attack(model, images, labels, generators[1])
                loss = F.cross_entropy(model(attacked).float(), labels)
            rate = learning_rate("one-cycle", given.train.learning_rate, number, given.train.epochs * batches)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return model.state_dict()


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    return plain_adversarial_training(recipe())


@pytest.mark.parametrize("method", METHODS)
def test_weight_0_is_plain_adversarial_training_bit_for_bit(
    tmp_path: Path, plain: dict[str, torch.Tensor], method: str
) -> None:
    without = {name: {**section, "weight": 0.0} for name, section in METHODS[method].items()}
    fit(recipe(**without), None, tmp_path, device=CPU)
    assert same(weights(tmp_path), plain)


def test_averaging_and_the_guard_leave_the_trained_weights_alone(
    tmp_path: Path, plain: dict[str, torch.Tensor]
) -> None:
    fit(recipe(averaging={"kind": "ema"}, attack={"guard": True}), None, tmp_path, device=CPU)
    assert same(weights(tmp_path), plain)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_changes_the_weights_and_resumes_exactly(
    tmp_path: Path, plain: dict[str, torch.Tensor], method: str
) -> None:
    given = recipe(**METHODS[method], averaging={"kind": "ema", "decay": 0.5}, attack={"guard": True})

    def stop(loop: Loop) -> None:
        if loop.steps_done == 6:
            raise KeyboardInterrupt

    fit(given, None, tmp_path / "whole", device=CPU)
    with pytest.raises(KeyboardInterrupt):
        fit(given, None, tmp_path / "stopped", device=CPU, on_step=stop)
    assert read_checkpoint(tmp_path / "stopped")["loop"]["epoch"] == 1
    assert fit(given, None, tmp_path / "stopped", device=CPU) is Outcome.FINISHED
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))
    assert not same(weights(tmp_path / "whole"), plain)
    averages = [load_run(tmp_path / name).model.state_dict() for name in ("stopped", "whole")]
    assert same(*averages)
    assert not same(averages[0], weights(tmp_path / "whole"))


def test_an_embedding_trained_alone_resumes_exactly_head_included(tmp_path: Path) -> None:
    given = recipe(
        attack={"name": "none"},
        metric={"weight": 1.0, "attack": "hardness", "steps": 2, "classification_weight": 0.0},
        averaging={"kind": "ema", "decay": 0.5},
    )

    def stop(loop: Loop) -> None:
        if loop.steps_done == 6:
            raise KeyboardInterrupt

    fit(given, None, tmp_path / "whole", device=CPU)
    with pytest.raises(KeyboardInterrupt):
        fit(given, None, tmp_path / "stopped", device=CPU, on_step=stop)
    assert read_checkpoint(tmp_path / "stopped")["loop"]["terms"]["metric"]["last"] > 0
    fit(given, None, tmp_path / "stopped", device=CPU)
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))
    heads = [load_run(tmp_path / name).model.head.weight for name in ("stopped", "whole")]
    assert torch.equal(*heads)
