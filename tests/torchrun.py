"""Processes on the CPU that torchrun starts."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["PATIENCE_S", "started"]

ROOT = Path(__file__).parent.parent
PATIENCE_S = 600.0
"""A busy machine takes minutes to start four processes that import torch."""
TWO_HERE = ("--standalone", "--nproc-per-node", "2")


@contextmanager
def started(
    *arguments: str, options: Sequence[str] = TWO_HERE, environment: Mapping[str, str] | None = None
) -> "Iterator[subprocess.Popen[str]]":
    """torchrun with these options, which runs python with these arguments; ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
            **(environment or {}),
        },
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()  # torchrun then ends what it started
        process.communicate(timeout=PATIENCE_S)
