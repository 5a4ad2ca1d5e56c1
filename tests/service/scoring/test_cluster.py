"""On a real Ray cluster of two nodes on this machine, one of which is killed on the way."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray (the extra `cluster`) is not installed")

import ray
from ray.cluster_utils import Cluster

from service.__main__ import main
from service.scoring.ledger import MANIFEST
from tests import tiny
from tests.service.scoring import made

WAIT_S = 240.0


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """Two nodes of 2 processors each; the first is where the command runs, the second comes with it."""
    ours = str(Path(__file__).parents[3])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([ours, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 starves them where other work runs
    size = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
    head = {**size, "include_dashboard": False, "_system_config": quick}
    both = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield both, both.add_node(**size)
    finally:
        ray.shutdown()
        both.shutdown()


def large_pictures(count: int) -> list[bytes]:
    """So large that it takes time to decode and to resize them."""
    return [made.png(np.kron(image, np.ones((60, 60, 1), np.uint8))) for image in tiny.images(count)]


def is_busy(node_id: str) -> bool:
    """Whether a node has given some of its 2 processors to tasks."""
    if not ray.is_initialized():
        return False
    return bool(ray._private.state.available_resources_per_node().get(node_id, {}).get("CPU", 0.0) < 2)


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_node_that_is_killed_on_the_way_loses_nothing_and_nothing_comes_twice(
    cluster: tuple[Any, Any], tmp_path: Path, resizing_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    both, second = cluster
    made.folder(tmp_path / "in", large_pictures(300))
    made.tarred(tmp_path / "in" / "a.tar", large_pictures(100))
    (tmp_path / "in" / "000" / "00005.png").write_bytes(b"hello")
    given = [str(tmp_path / "in"), "--bundle", str(resizing_path), "--shard-images", "10", "--batch", "16"]
    assert main(["score", *given, "--out", str(tmp_path / "here")]) == 1

    manifest, killed = tmp_path / "there" / MANIFEST, threading.Event()
    shards = [0]

    def kill_on_the_way() -> None:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            shards[0] = manifest.read_bytes().count(b'"errors"') if manifest.exists() else 0
            if shards[0] > 1 and is_busy(second.node_id):
                both.remove_node(second, allow_graceful=False)
                killed.set()
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_on_the_way)
    killer.start()
    status = main(["score", *given, "--out", str(tmp_path / "there"), "--ray", both.address])
    killer.join()
    assert killed.is_set()
    assert shards[0] < 40
    assert status == 1, capfd.readouterr().err
    assert made.rows(tmp_path / "there") == made.rows(tmp_path / "here")
    names = [[path.name for path in sorted((tmp_path / place).glob("*.parquet"))] for place in ("here", "there")]
    assert names[0] == names[1]
    assert len(names[0]) == 40

    capfd.readouterr()
    assert main(["score", *given, "--out", str(tmp_path / "there")]) == 1  # goes over to this machine: all is there
    assert "400 images, 400 of them by an earlier run" in capfd.readouterr().out


def test_an_address_without_a_cluster_is_one_line(
    tmp_path: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.folder(tmp_path / "in", made.pictures(1))
    given = [str(tmp_path / "in"), "--bundle", str(bundle_path), "--out", str(tmp_path / "out")]
    for address in ("127.0.0.1:1", "127.0.0.1:many", "127.0.0.1:99999"):
        assert main(["score", *given, "--ray", address]) == 1
        assert f"--ray {address}: no cluster answers there: " in capsys.readouterr().err
