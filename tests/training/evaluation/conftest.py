"""A run and its bundle that the tests here share; one thread for tiny tensors: more only wait for each other."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from tests.training.evaluation import small
from training.__main__ import main
from training.checkpoint import read_checkpoint, write_checkpoint
from training.evaluation.adaptive_suite import AdaptiveStrength
from training.evaluation.series import SeriesStrength

BRIEF = AdaptiveStrength(
    steps=2,
    restarts=1,
    bisections=1,
    nearest=1,
    others=1,
    queries=10,
    targets=2,
    turns=1,
    probes=2,
    walk_images=5,
)
SHORT = SeriesStrength(images=10, steps=2, lengths=(1, 3), restarts=(2,), steps_of_restarts=1)

FIT = """
[data]
set = "npz"
fit = 20
calibration = 20
fusion = 20
[model]
width = 4
depth = 1
[train]
epochs = 1
threads = 1
batch_size = 32
learning_rate = 0.02
[attack]
eps = 0.1
steps = 2
[export]
default_alpha = 0.05
"""


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A trained run and its data file."""
    folder = tmp_path_factory.mktemp("run")
    data, recipe, made = folder / "quadrants.npz", folder / "recipe.toml", folder / "run"
    train, test = small.held_out(160, seed=11), small.held_out(40, seed=12)
    np.savez(
        data,
        train_images=train.images,
        train_labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
        class_names=np.array(tiny.CLASSES),
    )
    recipe.write_text(FIT, encoding="utf-8")
    assert main(["fit", str(recipe), "--out", str(made), "--data", str(data)]) == 0
    return made, data


@pytest.fixture(scope="package")
def exported(run: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of that run."""
    bundle = tmp_path_factory.mktemp("exported") / "quadrants"
    assert main(["export", str(run[0]), "--out", str(bundle), "--data", str(run[1])]) == 0
    return bundle


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def other(run: tuple[Path, Path], tmp_path: Path) -> Path:
    """A run of the same data with other weights."""
    content = read_checkpoint(run[0])
    weights = (content["loop"]["best_averaged"] or content["loop"]["best"] or content["loop"])["model"]
    draws = torch.Generator().manual_seed(0)
    for value in weights.values():
        if value.is_floating_point():
            value += 0.3 * value.abs().mean() * torch.randn(value.shape, generator=draws)
    (tmp_path / "other").mkdir()
    write_checkpoint(tmp_path / "other", content)
    return tmp_path / "other"
