"""What tests of the training side share: exports without a history, and one short run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.detection.bundle import Bundle
from training.config import load_recipe
from training.detectors import learned
from training.export import export
from training.fit import fit

RECIPE = [
    *("train.epochs=4", "attack.name=none", "tla.weight=0.0", "train.threads=1", "model.width=8"),
    'export.detectors=["companion","centroid_margin","perturbation_sensor"]',
]


@pytest.fixture(scope="session", autouse=True)
def _without_history() -> Iterator[None]:
    """Exports leave out the history's calibration, which takes most of a minute; tests/training/history makes one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.export.made_history", lambda *_, **__: None)
        yield


@pytest.fixture(scope="session")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits, of seconds."""
    path = tmp_path_factory.mktemp("runs") / "digits-s7"
    fit(load_recipe("digits", RECIPE), None, path)
    return path


@pytest.fixture(scope="session")
def exact(run_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Its bundle in float32, with another alpha than the recipe's, and detectors that learned for a few steps."""
    path = tmp_path_factory.mktemp("bundles") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned, "LEAST_STEPS", 60)
        patch.setattr(learned, "MOST_STEPS", 60)
        return export(run_path, path, data_root=None, overrides=["export.default_alpha=0.05"])
