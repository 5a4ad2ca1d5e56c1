"""What processors this process has: how many it may use, and of which kind."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cpu_quota", "processor_kind"]

CGROUP_FOLDERS = ("sys/fs/cgroup", "sys/fs/cgroup/unified", "sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")
"""Where control groups are mounted: version 2 alone or beside version 1, and version 1's by either of its names."""


def cpu_quota(root: Path = Path("/")) -> int:
    """Whole processors that this process may use, at least 1: its affinity, or less where a control group allows less.

    The groups above a group limit it too, so the least quota on the way up holds. A fraction is rounded down: a thread
    more than the quota has processors makes the kernel stop all of them for the rest of each period.

    Args:
        root: where `/proc` and `/sys` are found.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    for mount in CGROUP_FOLDERS:
        for path in _group_paths(root):
            folder = root / mount / path
            for quota in (_version_2(folder), _version_1(folder)):
                if quota is not None:
                    yield quota


def _group_paths(root: Path) -> set[str]:
    """The process's groups and all above them, relative to a mount. In a container the mount itself is the group."""
    found = {""}
    for line in _lines(root / "proc/self/cgroup"):
        parts = line.partition(":")[2].partition(":")[2].strip("/").split("/")
        found |= {"/".join(parts[:depth]) for depth in range(1, len(parts) + 1) if ".." not in parts}
    return found


def _version_2(folder: Path) -> float | None:
    return _ratio(" ".join(_lines(folder / "cpu.max")).split())


def _version_1(folder: Path) -> float | None:
    return _ratio([*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")])


def _ratio(words: list[str]) -> float | None:
    """Quota to period, both in microseconds; None for no quota (`max` or -1) and for what is no pair of numbers."""
    try:
        quota, period = map(int, words)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def processor_kind(root: Path = Path("/")) -> str:
    """What an optimised graph depends on: architecture, model and instruction sets of the first processor.

    Args:
        root: where `/proc` is found.
    """
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "CPU implementer", "Features")
    first: dict[str, str] = {}
    for line in _lines(root / "proc/cpuinfo"):
        name, _, value = line.partition(":")
        if not name.strip():
            break
        first[name.strip()] = value.strip()
    facts = [f"{name}={first[name]}" for name in wanted if name in first]
    return "; ".join([platform.machine(), *(facts or [platform.processor()])])
