"""What all tests share: small bundles, and one thread for each computation."""

import os

# The tests run in several processes: more threads than processors would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

from service.detection.engine import Engine
from tests import tiny


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def resizing_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with `resize.onnx`."""
    return tiny.write(tmp_path_factory.mktemp("bundles") / "resizing", resizes=True)


@pytest.fixture(scope="session")
def resizing(resizing_path: Path) -> Engine:
    return tiny.engine(resizing_path)


@pytest.fixture(scope="session")
def engine(bundle_path: Path) -> Engine:
    return tiny.engine(bundle_path)
