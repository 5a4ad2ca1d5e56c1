"""Bundles and engines for the tests of training."""

from pathlib import Path

import pytest

from service.detection.engine import Engine
from tests import tiny


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def engine(bundle_path: Path) -> Engine:
    return tiny.engine(bundle_path)
