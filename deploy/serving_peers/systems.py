"""Starts the model servers of others on the bundle's graph."""

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from deploy.load import Unary
from deploy.server_process import Server, started
from deploy.serving_peers.oip import MODEL
from service.errors import SetupError

__all__ = ["KSERVE", "MLSERVER", "Peer", "is_installed", "peer"]

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent.parent / "build" / "peers"
START_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A model server of others and how it is set."""

    name: str
    """Of its environment."""
    workers: int = 0
    """MLServer's processes for inference beside the one for requests."""
    max_batch: int = 0
    """Of MLServer's adaptive batching; 0 is without."""
    max_wait_ms: float = 0.0

    def __str__(self) -> str:
        if self.name != "mlserver":
            return self.name
        batching = f"batches of {self.max_batch} in {self.max_wait_ms:g} ms" if self.max_batch else "no batching"
        return f"{self.name}, {self.workers} workers, {batching}"


MLSERVER = tuple(
    Peer(name="mlserver", workers=workers, max_batch=max_batch, max_wait_ms=max_wait_ms)
    for workers in (0, 1)
    for max_batch, max_wait_ms in ((0, 0.0), (8, 1.0), (32, 5.0))
)
"""The ways it is tried; the best one counts."""
KSERVE = Peer(name="kserve")


def is_installed(name: str) -> bool:
    """Whether `setup.sh` has made its environment."""
    return (ENVIRONMENTS / name / "ready").exists()


@contextlib.contextmanager
def peer(which: Peer, graph: Path, core: int, first: Unary) -> Iterator[Server]:
    """Serves a graph on one core with one graph thread.

    Args:
        graph: an ONNX file.
        first: calls of which one is answered before it counts as started.

    Raises:
        SetupError: it did not start; the end of its log is in the text.
    """
    grpc_port, http_port = _free_ports(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open(folder / "log", "w+", encoding="utf-8") as log:
            arguments = _arguments(which, folder, graph.resolve(), grpc_port, http_port)
            environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
            environment |= {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
            begun = time.monotonic()
            with started(arguments, core, output=log, errors=log, environment=environment, directory=folder) as process:
                target = f"127.0.0.1:{grpc_port}"
                if not _answers(process, target, first):
                    tail = (folder / "log").read_text(encoding="utf-8", errors="replace")[-1000:]
                    raise SetupError(f"{which}: it answers no ModelInfer within {START_S:g} s; its log ends: {tail}")
                yield Server(target, process.pid, time.monotonic() - begun)


def _arguments(which: Peer, folder: Path, graph: Path, grpc_port: int, http_port: int) -> list[str]:
    programs = ENVIRONMENTS / which.name / "bin"
    if which.name == "kserve":
        quiet = ["--enable_latency_logging", "false", "--configure_logging", "false"]
        ports = ["--grpc_port", str(grpc_port), "--http_port", str(http_port)]
        return [str(programs / "python"), str(HERE / "kserve_model.py"), str(graph), *ports, *quiet]
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": http_port,
        "grpc_port": grpc_port,
        "parallel_workers": which.workers,
        "metrics_endpoint": None,
    }
    model = {
        "name": MODEL,
        "implementation": "mlserver_model.GraphModel",
        "max_batch_size": which.max_batch,
        "max_batch_time": which.max_wait_ms / 1000,
        "parameters": {"uri": str(graph)},
    }
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    return [str(programs / "mlserver"), "start", str(folder)]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in held]


def _answers(process: "subprocess.Popen[str]", target: str, first: Unary) -> bool:
    until = time.monotonic() + START_S
    with grpc.insecure_channel(target) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(first.method)
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(grpc.RpcError):
                call(first.requests[0], timeout=5.0)
                return True
            time.sleep(0.05)
    return False
