"""docs/examples: each runs against a server as its first line says."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.client import Client
from service.detection.engine import Engine
from tests.service.client.test_client import png
from tests.service.running import Running, running

ROOT = Path(__file__).parent.parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples"
NODE_MODULES = Path(os.environ.get("NODE_PATH", ROOT / "build" / "node" / "node_modules"))


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Running]:
    with running(engine) as made:
        yield made


@pytest.fixture(scope="module")
def folder(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("images")
    shape = engine.bundle.manifest.input
    for seed in range(2):
        size = (shape.height, shape.width, shape.channels)
        (made / f"{seed}.png").write_bytes(png(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)))
    (made / "2.png").write_bytes(b"no image")
    return made


def said(*command: object) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NODE_PATH": str(NODE_MODULES)}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    return sorted(done.stdout.splitlines())


def expected(server: Running, folder: Path) -> list[str]:
    with Client(server.ports.grpc) as client:
        return [
            f"{seed}.png {found.top.label} {found.verdict}"
            for seed, found in enumerate(client.detect(folder / f"{seed}.png") for seed in range(2))
        ]


def test_a_folder(server: Running, folder: Path) -> None:
    lines = said(sys.executable, EXAMPLES / "folder.py", server.ports.grpc, folder)
    assert lines[:2] == expected(server, folder)
    assert lines[2].startswith("2.png expected PNG")


def test_many_at_once(server: Running, folder: Path) -> None:
    lines = said(sys.executable, EXAMPLES / "gateway.py", server.ports.grpc, *sorted(folder.iterdir()))
    assert lines[:2] == expected(server, folder)
    assert lines[2].startswith("2.png expected PNG")


@pytest.mark.skipif(
    shutil.which("node") is None or not (NODE_MODULES / "@grpc" / "proto-loader").is_dir(),
    reason="needs node, and `npm install --prefix build/node @grpc/grpc-js @grpc/proto-loader`",
)
def test_node(server: Running, folder: Path) -> None:
    files = sorted(folder.iterdir())
    lines = said("node", EXAMPLES / "detect.js", server.ports.grpc, *files)
    wanted = [line.split() for line in expected(server, folder)]
    assert lines[:2] == [f"{folder / name} {label} VERDICT_{verdict.upper()}" for name, label, verdict in wanted]
    assert lines[2].startswith(f"{files[2]} 3 expected PNG")  # INVALID_ARGUMENT
