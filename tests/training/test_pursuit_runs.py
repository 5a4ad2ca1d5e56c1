"""Deep pursuit in a recipe: training with other methods, the log, averaging, and what is exported."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from service.detection.engine import Engine
from service.errors import SetupError
from training.checkpoint import load_parts, load_run
from training.config import Recipe, load_recipe, recipe_to_toml
from training.evaluation.twin import torch_twin
from training.export import export
from training.fit import fit
from training.graph import torch_outputs
from training.loop import Loop
from training.parity import compare_outputs

PURSUIT = (
    *("model.name=pursuit", "model.width=4", "model.depth=1", "model.embedding_dim=16", "model.sweeps=2"),
    *("train.epochs=1", "train.batch_size=50", "train.threads=1", "train.optimiser=adam", "train.learning_rate=0.002"),
    *("data.train=300", "attack.steps=1", "attack.eps=0.1", 'export.detectors=["gaussian", "spectrum"]'),
)


def recipe(*overrides: str) -> Recipe:
    return load_recipe("digits", [*PURSUIT, *overrides])


def loop_of(given: Recipe) -> Loop:
    _, parts = load_parts(given, None)
    return Loop(given, parts, 10, torch.device("cpu"))


def run_epoch(loop: Loop) -> None:
    while not loop.epoch_is_over:
        loop.step()
    loop.close_epoch()


@pytest.fixture(scope="module")
def combined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of deep pursuit with TLA, SAR and averaging."""
    path = tmp_path_factory.mktemp("runs") / "combined"
    fit(recipe("tla.weight=0.5", "tla.pool=20", "sar.weight=0.06", "averaging.kind=ema"), None, path)
    return path


def test_the_log_tells_the_share_of_active_units_of_each_layer(combined: Path) -> None:
    (record,) = [json.loads(line) for line in (combined / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    shares = {key: value for key, value in record.items() if key.startswith("active_")}
    assert list(shares) == ["active_1", "active_2", "active_3", "active_4"]
    assert all(0 < value <= 1 for value in shares.values())


@pytest.fixture(scope="module")
def engine(combined: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    bundle = export(combined, tmp_path_factory.mktemp("bundles") / "bundle", data_root=None)
    return Engine.load(bundle.path, threads=1)


def test_the_bundle_gives_the_answers_of_the_network(combined: Path, engine: Engine) -> None:
    run = load_run(combined)
    parts = run.parts(None)
    images = np.ascontiguousarray(parts.test.images[:33])
    found = compare_outputs(torch_outputs(torch_twin(run, parts, engine), images), engine.graph.run(images))
    assert found.labels == 0
    assert found.logits < 1e-4
    assert found.embedding < 1e-5
    assert found.scores < 1e-3


def test_the_graph_holds_a_fixed_number_of_sweeps_of_convolutions(engine: Engine) -> None:
    graph = onnx.load_from_string(engine.bundle.graph).graph
    count = Counter(node.op_type for node in graph.node)
    assert count["Conv"] >= 3 * (1 + 2)  # forward and two sweeps; a detector may have its own
    assert count["ConvTranspose"] == 3 * 2
    assert count["Relu"] >= 4 * (1 + 2)
    assert not count.keys() & {"If", "Loop", "Scan"}


def test_norms_are_those_of_the_weights_that_are_measured_and_kept() -> None:
    loop = loop_of(recipe("averaging.kind=ema", "data.selection=50"))
    run_epoch(loop)
    assert loop.best is not None
    assert loop.best_averaged is not None
    for kept in (loop.best["model"], loop.best_averaged["model"]):
        loop.model.load_state_dict(kept)
        before = [float(norm) for name, norm in loop.model.named_buffers() if name.endswith("squared_norm")]
        loop.model.settle()
        after = [float(norm) for name, norm in loop.model.named_buffers() if name.endswith("squared_norm")]
        assert before == pytest.approx(after, rel=1e-3)
        assert len(before) == 4


def test_training_ends_with_a_clear_message_when_the_last_layer_is_dead(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"model\.threshold: expected active units in the last layer, got none on 50"):
        fit(recipe("model.threshold=100", "train.learning_rate=1e-6", "attack.name=none"), None, tmp_path / "run")


def test_an_interrupted_run_ends_in_the_weights_of_an_uninterrupted_one() -> None:
    given = recipe("attack.name=none", "train.epochs=2")
    whole, first = loop_of(given), loop_of(given)
    run_epoch(whole)
    run_epoch(whole)
    run_epoch(first)
    first.step()
    second = loop_of(given)
    second.load_state(first.state())
    while not second.epoch_is_over:
        second.step()
    second.close_epoch()
    theirs = second.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in whole.model.state_dict().items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.inference=layered"], r"model\.skips: expected false with model\.inference"),
        (["model.threshold=-1"], r"model\.threshold: expected a number of at least 0"),
        (["model.sweeps=-1"], r"model\.sweeps: expected a number of at least 0"),
        (["model.inference=shallow"], r"model\.inference: expected one of feed_forward, layered, deep"),
        (["model.soft_threshold=15"], r"model\.soft_threshold: expected 0 for pursuit, got 15"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=message):
        fit(recipe(*overrides), None, tmp_path / "run")


def test_sweeps_of_a_recipe_that_makes_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twin.toml"
    path.write_text(recipe_to_toml(load_recipe("digits", [*PURSUIT, "model.inference=feed_forward"])), encoding="utf-8")
    load_recipe(path)
    with pytest.raises(SetupError, match=r"model\.sweeps: expected model\.inference to be layered or deep"):
        load_recipe(path, ["model.sweeps=3"])
