"""Runs atheris on targets, each in a process of its own, and keeps what reached new code."""

import hashlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from deploy.fuzz.seeds import seeds
from deploy.fuzz.targets import run

__all__ = ["CORPUS", "Found", "fuzz", "is_installed", "keep", "write_seeds"]

CORPUS = Path(__file__).parent.parent.parent / "tests" / "fuzz" / "corpus"
MAX_BYTES = 8192
RSS_MB = 1024


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of one target."""

    target: str
    inputs: int
    crashes: tuple[Path, ...]
    """Inputs that led to anything else than an allowed error."""
    text: str
    """The end of what atheris wrote."""


def is_installed() -> bool:
    """Whether atheris is here; it is made for Linux."""
    return importlib.util.find_spec("atheris") is not None


def write_seeds(target: str, folder: Path) -> None:
    """Writes the target's seeds, named by their content."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in seeds()[target]:
        (folder / _name(data)).write_bytes(data)


def _harness(target: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "deploy.fuzz.harness", target, *arguments]
    # the exception stands on one of the two, libFuzzer's figures on the other
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )


def fuzz(target: str, folder: Path, seconds: int, inputs: int | None = None) -> Found:
    """Fuzzes for a time, from the seeds and the corpus on.

    Args:
        folder: for the inputs that reach new code, and those that crash.
        seconds: at most.
        inputs: after which to end; None for as many as there is time for.
    """
    work, crashes = folder / target, folder / f"{target}-crashes"
    write_seeds(target, work)
    crashes.mkdir(parents=True, exist_ok=True)
    kept = CORPUS / target
    done = _harness(
        target,
        f"-max_total_time={seconds}",
        *([] if inputs is None else [f"-runs={inputs}"]),
        f"-max_len={MAX_BYTES}",
        f"-rss_limit_mb={RSS_MB}",
        "-timeout=10",
        "-print_final_stats=1",
        f"-artifact_prefix={crashes}/",
        str(work),
        *([str(kept)] if kept.exists() else []),
    )
    count = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stdout)
    found = tuple(sorted(crashes.iterdir()))
    if done.returncode and not found:
        raise RuntimeError(f"atheris on {target} ended with {done.returncode}: {done.stdout[-1000:]}")
    return Found(target=target, inputs=int(count[1]) if count else 0, crashes=found, text=done.stdout[-3000:])


def keep(targets: Sequence[str], folder: Path) -> None:
    """Adds to the corpus the inputs that reach a line which neither a seed nor a smaller input reaches."""
    for target in targets:
        kept = CORPUS / target
        kept.mkdir(parents=True, exist_ok=True)
        known = [*seeds()[target], *(path.read_bytes() for path in kept.iterdir())]
        seen = set().union(*(_lines(target, data) for data in known))
        for path in sorted((folder / target).iterdir(), key=lambda path: (path.stat().st_size, path.name)):
            data = path.read_bytes()
            if not (reached := _lines(target, data)) <= seen:
                seen |= reached
                (kept / _name(data)).write_bytes(data)


def _lines(target: str, data: bytes) -> set[tuple[str, int]]:
    """Lines of ours and of Pillow's that an input reaches."""
    reached: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        name = frame.f_code.co_filename
        if "/service/" not in name and "/PIL/" not in name:
            return None
        reached.add((name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run(target, data)
    finally:
        sys.settrace(before)
    return reached


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
