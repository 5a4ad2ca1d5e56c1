"""R-17 and R-23: clients, probes and the image that others make or read."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from deploy.reliability.check import Check, Figures, NotRun
from deploy.reliability.rig import Rig, Size, images_of
from service.client import Client
from service.errors import SetupError
from service.rpc.convert import SERVICE

__all__ = ["CHECKS"]

COUNT = 16
TEST_IMAGE = Path(__file__).parent.parent / "test_image.sh"
IMAGE = {
    "own_layers_mb": "<= 300",
    "packages_not_pinned": "= 0",
    "secrets": "= 0",
    "writable_files": "= 0",
    "runs_as": "= 65532",
    "capabilities": "= 0",
    "may_gain_privileges": "= 0",
    "may_write_root": "= 0",
    "wrong_answers": "= 0",
    "read_only_wrong_answers": "= 0",
}
"""Figures of `make test-image` that the sheet tells; its exit status holds what else is asked of an image."""


def _tools(target: str) -> dict[str, list[list[str]]]:
    """Commands by tool; each must end with 0."""
    return {
        "grpcurl": [
            ["-plaintext", target, "list"],
            ["-plaintext", "-d", "{}", target, f"{SERVICE}/GetModelInfo"],
            ["-plaintext", "-d", '{"service": "ready"}', target, "grpc.health.v1.Health/Check"],
        ],
        "grpc_health_probe": [["-addr", target], ["-addr", target, "-service", "ready"]],
    }


def others(rig: Rig) -> Figures:
    """R-17."""
    if importlib.util.find_spec("tritonclient") is None:
        raise NotRun("tritonclient is not installed")
    images = images_of(rig.bundle, COUNT)
    path = rig.folder / "triton.npy"
    np.save(path, images)
    failed = 0
    with rig.server(reveal="scores") as running, Client(running.target) as client:
        known = [client.detect(image).p_value for image in images]
        command = [sys.executable, "-m", "deploy.reliability.triton_calls", running.target, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
        installed = [name for name in _tools("") if shutil.which(name)]
        for name in installed:
            for arguments in _tools(running.target)[name]:
                failed += (
                    subprocess.run([name, *arguments], capture_output=True, timeout=60, check=False).returncode != 0
                )
    found = json.loads(done.stdout)
    ready = found.pop("ready")[0]
    return {
        "ways_of_tritonclient": len(found),
        "tritonclient_says_not_ready": 1 - ready,
        "answers_differing": sum(a != b for values in found.values() for a, b in zip(values, known, strict=True)),
        "tools_tried": len(installed),
        "tools_failed": failed,
    }


def image(rig: Rig) -> Figures:
    """R-23."""
    if rig.size is not Size.FULL:
        raise NotRun("builds an image: at full size only; the figures of `make test-image` are in results.md, image")
    done = subprocess.run(
        [TEST_IMAGE], env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=False
    )
    if not done.stdout:
        said = done.stderr.strip().splitlines()[-1:]
        if done.returncode == 0:  # it lacks tools, or rights
            raise NotRun(" ".join(said))
        raise SetupError(f"no image was built: {' '.join(said)}")
    found = json.loads(done.stdout)
    return {**{name: found[name] for name in IMAGE}, "missed_exit_status": done.returncode}


CHECKS = (
    Check(
        number="R-17",
        text="tritonclient (sync, asyncio, stream) in a process of its own; grpcurl with reflection and "
        "grpc_health_probe where they are installed; Envoy is not tried",
        asked={
            "ways_of_tritonclient": "= 3",
            "tritonclient_says_not_ready": "= 0",
            "answers_differing": "= 0",
            "tools_failed": "= 0",
        },
        run=others,
        is_quick=True,
    ),
    Check(
        number="R-23",
        text="the container image of target cpu, built, run as a container and with a read-only root, and looked "
        "through; known holes of its packages are for `make audit`, those of the base for a scanner",
        asked={**IMAGE, "missed_exit_status": "= 0"},
        run=image,
    ),
)
