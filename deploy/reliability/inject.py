"""Starts the service with a fault in it, for the checks that need one.

`python -m deploy.reliability.inject FAULT MARKER serve ...`: while the file MARKER exists, the fault is there. A
process cannot be made to hang from outside.
"""

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.__main__ import main
from service.detection.graph import Graph

__all__ = ["FAULTS", "command"]


def _stuck(marker: Path) -> None:
    """The graph does not come back."""
    run = Graph.run

    def patched(self: Graph, images: Any) -> Any:
        while marker.exists():
            time.sleep(0.02)
        return run(self, images)

    Graph.run = patched  # type: ignore[method-assign]


def _raising(text: str) -> Callable[[Path], None]:
    """The graph fails on everything."""

    def install(marker: Path) -> None:
        run = Graph.run

        def patched(self: Graph, images: Any) -> Any:
            if marker.exists():
                raise RuntimeError(text)
            return run(self, images)

        Graph.run = patched  # type: ignore[method-assign]

    return install


def _no_names(marker: Path) -> None:
    """No name is resolved."""
    look_up = socket.getaddrinfo

    def patched(*arguments: Any, **named: Any) -> Any:
        if marker.exists():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up(*arguments, **named)

    socket.getaddrinfo = patched


FAULTS: dict[str, Callable[[Path], None]] = {
    "stuck": _stuck,
    "onnxruntime": _raising("[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node"),
    "cuda": _raising("CUDA failure 700: an illegal memory access was encountered"),
    "dns": _no_names,
}


def command(fault: str, marker: Path) -> tuple[str, ...]:
    """What a rig's server is started with to have a fault."""
    return (sys.executable, "-m", "deploy.reliability.inject", fault, str(marker))


if __name__ == "__main__":
    FAULTS[sys.argv[1]](Path(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
