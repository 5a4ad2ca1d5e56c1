"""Which code, machine and libraries made a figure."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

__all__ = ["commit", "libraries", "machine", "processor"]

_ROOT = Path(__file__).resolve().parent.parent.parent
_RESULTS = ":(top,exclude)docs/results"
_LIBRARIES = ("torch", "numpy", "onnxruntime", "onnxruntime-gpu", "foolbox")


def commit() -> str:
    """The checkout's commit, with "+" behind it when tracked files have been changed; "unknown" outside a checkout.

    Results do not count, of which a script writes one after another: no figure comes of them.
    """
    head = _git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no", "--", ":/", _RESULTS) else "")


def machine(processes: int = 1) -> str:
    """Processor, cores that the process may use, GPU where torch sees one; the processes where they are several."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor()}, {cores} cores{gpu}, {platform.system()}" + (
        f", {processes} processes" if processes > 1 else ""
    )


def libraries() -> dict[str, str]:
    """Versions of the libraries that a figure depends on."""
    return {name: version for name in _LIBRARIES if (version := _version(name))}


def processor() -> str:
    """Its name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _git(*arguments: str) -> str:
    """What git says of the checkout; empty where there is no git or no checkout."""
    if not (_ROOT / ".git").exists():
        return ""
    try:
        run = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
