"""Quotas of control groups as files, of both versions."""

import os
from pathlib import Path

import pytest

from service.detection import processors
from service.detection.processors import cpu_quota, processor_kind

V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "processors_"),
    [
        ({}, 8),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"sys/fs/cgroup/cpu.max": "2900000 1000000\n"}, 2),  # rounded down
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),  # at least one
        ({"sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 8),  # no more than the affinity
        ({"sys/fs/cgroup/cpu.max": "rubbish\n"}, 8),
        ({"sys/fs/cgroup/cpu.max": "100000 0\n"}, 8),
        ({f"{V1}/cpu.cfs_quota_us": "-1\n", f"{V1}/cpu.cfs_period_us": "100000\n"}, 8),
        ({f"{V1}/cpu.cfs_quota_us": "350000\n", f"{V1}/cpu.cfs_period_us": "100000\n"}, 3),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n"}, 8),  # no period
    ],
    ids=str,
)
def test_the_quota_at_the_mount_holds(tmp_path: Path, files: dict[str, str], processors_: int) -> None:
    assert cpu_quota(write(tmp_path, **files)) == processors_


@pytest.mark.parametrize(
    ("files", "processors_"),
    [
        ({"sys/fs/cgroup/a/b/cpu.max": "300000 100000\n"}, 3),
        ({"sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "200000 100000\n"}, 2),
        ({"sys/fs/cgroup/a/b/cpu.max": "300000 100000\n", "sys/fs/cgroup/cpu.max": "600000 100000\n"}, 3),
        ({"sys/fs/cgroup/elsewhere/cpu.max": "100000 100000\n"}, 8),
        ({"sys/fs/cgroup/unified/a/b/cpu.max": "200000 100000\n"}, 2),
        ({f"{V1}/v1/cpu.cfs_quota_us": "400000\n", f"{V1}/v1/cpu.cfs_period_us": "100000\n"}, 4),
    ],
    ids=str,
)
def test_the_least_quota_from_the_group_upwards_holds(tmp_path: Path, files: dict[str, str], processors_: int) -> None:
    groups = "4:memory:/other\n3:cpu,cpuacct:/v1\n0::/a/b\n"
    assert cpu_quota(write(tmp_path, **files, **{"proc/self/cgroup": groups})) == processors_


def test_a_group_above_the_mount_is_not_followed(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/../../outside\n", "sys/outside/cpu.max": "100000 100000\n"}
    assert cpu_quota(write(tmp_path, **files)) == 8


def test_without_affinity_the_machines_processors_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(processors.os, "sched_getaffinity")
    monkeypatch.setattr(processors.os, "cpu_count", lambda: 3)
    assert cpu_quota(tmp_path) == 3


def test_another_instruction_set_is_another_processor(tmp_path: Path) -> None:
    cpu = "processor : 0\nmodel name : X\ncpu MHz : {mhz}\nflags : sse4_2 {flag}\n\nprocessor : 1\nflags : none\n"
    kinds = []
    for number, (mhz, flag) in enumerate([(1000, "avx2"), (2000, "avx2"), (1000, "avx512f")]):
        kinds.append(processor_kind(write(tmp_path / str(number), **{"proc/cpuinfo": cpu.format(mhz=mhz, flag=flag)})))
    assert kinds[0] == kinds[1] != kinds[2]
    assert "flags=sse4_2 avx2" in kinds[0]
    assert processor_kind(tmp_path / "nothing")  # the architecture is always known
