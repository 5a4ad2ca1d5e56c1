"""Two processes that share a batch train what one does: under torchrun, on the CPU."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.errors import SetupError
from tests.torchrun import PATIENCE_S, started
from tests.training.shared_step import METHODS, gradients, recipe
from training.attacks.threat import named_norm, uniform
from training.checkpoint import read_checkpoint
from training.config import recipe_to_toml
from training.data.augment import drawn_moves, flipped, lit, moved, warped
from training.fit import fit
from training.losses.tla import random_negatives
from training.processes import Processes, check_shareable
from training.shard import Shard, ShardGenerator
from training.synchronised import SynchronisedBatchNorm2d, synchronise

CPU = torch.device("cpu")


def run(*arguments: str) -> str:
    """What two processes said on standard error."""
    with started(*arguments) as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    return said


def generators(seed: int = 0) -> list[torch.Generator]:
    """One of a whole batch, and those of two halves."""
    several: list[torch.Generator] = [torch.Generator()]
    for rank in range(2):
        generator = ShardGenerator()
        generator.shard = Shard(rank=rank, world=2)
        several.append(generator)
    return [generator.manual_seed(seed) for generator in several]


@pytest.mark.parametrize("drawing", ["uniform", "linf", "l2", "moved", "warped", "lit", "flipped", "random_negatives"])
def test_halves_of_a_batch_draw_what_the_whole_batch_draws(drawing: str) -> None:
    images = torch.rand(6, 2, 5, 4)
    labels, pool = torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(3).repeat(4)

    def drawn(rows: slice, generator: torch.Generator) -> Tensor:
        own = images[rows]
        if drawing == "uniform":
            return uniform(own, generator)
        if drawing == "moved":
            return moved(own, drawn_moves(len(own), 2, generator))
        if drawing == "warped":
            return warped(own, 20, 0.2, generator)
        if drawing == "lit":
            return lit(own, 0.2, 0.2, generator)
        if drawing == "flipped":
            return flipped(own, generator)
        if drawing == "random_negatives":
            return random_negatives(labels[rows], pool, generator)
        return named_norm(drawing).random_start(own, 0.1, generator)

    whole, first, second = generators()
    rows = drawn(slice(None), whole)
    assert torch.equal(rows, torch.cat([drawn(slice(3), first), drawn(slice(3, 6), second)]))
    assert torch.equal(whole.get_state(), first.get_state())
    assert torch.equal(whole.get_state(), second.get_state())


def test_synchronised_normalisation_has_the_names_and_the_very_weights_of_the_plain_one() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2)))
    names, weights = list(model.state_dict()), list(model.parameters())
    synchronise(model, Shard(rank=0, world=2))
    assert isinstance(model[1][0], SynchronisedBatchNorm2d)
    assert list(model.state_dict()) == names
    assert all(new is old for new, old in zip(model.parameters(), weights, strict=True))


@pytest.mark.parametrize(
    ("sections", "world", "message"),
    [
        ({}, 3, r"train\.batch_size: expected a multiple of 3, .* got 40; change it or --nproc-per-node"),
        ({"sar": {"weight": 0.1, "form": "batch2d"}}, 2, r"sar\.form: expected per_sample with 2 .* got batch2d"),
        (
            {"attack": {"renew_epochs": 5}, "train": {"flip": False}},
            2,
            r"attack\.renew_epochs: expected 0 with 2 processes, got 5",
        ),
        ({"metric": {"weight": 0.5}}, 2, r"metric\.weight: expected 0 with 2 processes, got 0\.5"),
    ],
    ids=["batch", "batch2d", "memory", "metric"],
)
def test_what_several_processes_cannot_share_is_refused(sections: Any, world: int, message: str) -> None:
    given = recipe(**sections)
    check_shareable(given, 40, Processes())
    with pytest.raises(SetupError, match=message):
        check_shareable(given, 40, Processes(shard=Shard(rank=0, world=world)))


def test_the_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    run("-m", "tests.training.shared_step", str(tmp_path))
    for method in METHODS:
        alone = gradients(method)
        for rank in range(2):
            together = torch.load(tmp_path / f"{method}-{rank}.pt", weights_only=True)
            assert together.keys() == alone.keys()
            for name, expected in alone.items():
                largest = float(expected.abs().max())
                torch.testing.assert_close(together[name], expected, rtol=1e-5, atol=1e-6 * largest, msg=name)


def test_a_run_of_two_processes_ends_where_a_run_of_one_does(tmp_path: Path) -> None:
    # Signs of gradients and the choice of negatives magnify rounding: large steps would not stay together for long.
    train = {"epochs": 2, "learning_rate": 0.01}
    given = recipe(attack={"guard": True}, averaging={"kind": "ema", "decay": 0.5}, train=train)
    fit(given, None, tmp_path / "alone", device=CPU)
    said = run("-m", "training", "fit", str(tmp_path / "alone" / "recipe.toml"), "--out", str(tmp_path / "together"))
    assert said.count("finished: ") == 1
    alone, together = (read_checkpoint(tmp_path / name)["loop"] for name in ("alone", "together"))
    pairs = [(alone["model"], together["model"]), (alone["averager"]["model"], together["averager"]["model"])]
    for wanted, found in pairs:
        assert found.keys() == wanted.keys()
        for name, expected in wanted.items():
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5, msg=name)
    assert all(torch.equal(together["generators"][name], state) for name, state in alone["generators"].items())
    assert [record["epoch"] for record in together["log"]] == [1, 2]
    assert together["log"][1]["loss"] == pytest.approx(alone["log"][1]["loss"], rel=1e-4)


def test_an_interrupt_stops_all_processes_and_the_first_one_saves(tmp_path: Path) -> None:
    out, stored = tmp_path / "run", tmp_path / "recipe.toml"
    stored.write_text(recipe_to_toml(recipe(train={"epochs": 5000})), encoding="utf-8")
    with started("-m", "training", "fit", str(stored), "--out", str(out)) as process:
        deadline = time.monotonic() + PATIENCE_S
        while not (out / "log.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert said.count("interrupted, saved in") == 1, said
    content = read_checkpoint(out)
    assert not content["is_finished"]
    lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, content["loop"]["epoch"] + 1))
