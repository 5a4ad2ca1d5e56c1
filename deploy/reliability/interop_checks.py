"""R-17 and R-23: clients, probes and the image that others make or read."""

import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np

from deploy.reliability.check import Check, Figures, NotRun
from deploy.reliability.rig import Rig, images_of
from service.client import Client
from service.rpc.convert import SERVICE

__all__ = ["CHECKS"]

COUNT = 16


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
    raise NotRun("`make test-image` measures it: results.md, image")


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
    Check(number="R-23", text="the container image: user, capabilities, size, known holes", asked={}, run=image),
)
