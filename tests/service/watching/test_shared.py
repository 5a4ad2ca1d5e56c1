"""Two servers whose histories are one, through a real Redis."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deploy.redis_process import RedisProcess
from service.client import Client
from service.errors import PermissionRefused
from service.rpc.health import HISTORY
from service.watching import telling
from service.watching.watch import HistoryWatch
from tests import tiny
from tests.service.rpc.test_door import until
from tests.service.running import Running, running
from tests.service.watching.test_opening import WITH

pytest.importorskip("redis", reason="the package redis (the extra `redis`) is not installed")
pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None,
    reason="there is no redis-server here (Debian: apt-get install redis-server)",
)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    made = RedisProcess(tmp_path)
    yield made
    made.kill()


def steps(count: int) -> list[np.ndarray]:
    """To and fro over the boundary between two classes."""
    generator = np.random.default_rng(7)
    start = np.full((tiny.SIDE, tiny.SIDE, 3), 90)
    start[:4] += 30
    return [(start + generator.integers(-2, 3, start.shape)).astype(np.uint8) for _ in range(count)]


def flags_of(watch: HistoryWatch | None) -> list[tuple[int, int]]:
    """By component."""
    assert watch is not None
    return [(one.who[1], one.flags) for one in watch.watched()]


def value(server: Running, name: str, **labels: str) -> float:
    return server.value(f"advsentry_history_{name}", **labels)


def health(server: Running) -> bool:
    with Client(server.ports.grpc) as client:
        return client.health(HISTORY)


def test_a_search_spread_over_two_servers_is_noticed_with_redis_and_served_without(
    redis: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "HEALTH_S", 0.01)
    secret = tmp_path / "history.secret"
    secret.touch(mode=0o600)
    secret.write_text("5c" * 32, encoding="utf-8")
    engine = tiny.engine(tiny.write(tmp_path / "colour", channels=3))
    settings = {
        "history": "reject",
        "history_flags": 3,
        "history_wait_s": 10.0,
        "history_entries": 1000,
        "history_url": redis.url,
        "history_secret": str(secret),
    }
    with (
        running(engine, open_watch=WITH, **settings) as one,
        running(engine, open_watch=WITH, **settings) as other,
        Client(one.ports.grpc) as to_one,
        Client(other.ports.grpc) as to_other,
    ):
        until(lambda: health(one) and health(other))
        sent = 0

        def search() -> None:
            nonlocal sent
            for number, image in enumerate(steps(200)):
                (to_one, to_other)[number % 2].detect(image)
                sent += 1

        with pytest.raises(PermissionRefused, match="look like steps of a search"):
            search()
        watch = (one, other)[sent % 2].app.models.current.watch
        assert watch is not None
        found = watch.watched()
        assert all(one.observation.everyone is not None for one in found)
        assert max(one.observation.everyone.size for one in found) > 0.6 * sent, "those that the other server got count"  # type: ignore[union-attr]
        both = [server.app.models.current.watch for server in (one, other)]
        until(lambda: sorted(flags_of(both[0])) == sorted(flags_of(both[1])))
        own = [server.value("advsentry_history_flags_total", scope="everyone") for server in (one, other)]
        assert all(own), "each had some"
        assert sum(flags for _, flags in flags_of(watch)) == sum(own)
        redis.kill()
        fresh = np.random.default_rng(8).integers(0, 256, (8, tiny.SIDE, tiny.SIDE, 3), dtype=np.uint8)
        for image in fresh:
            to_one.detect(image)
            to_other.detect(image)
        assert to_one.is_serving()
        until(lambda: value(one, "degraded") == value(other, "degraded") == 1)
        until(lambda: not health(one) and not health(other))
        assert value(one, "queries_total", outcome="unobserved") == 0
        redis.start()
        until(lambda: value(one, "degraded") == value(other, "degraded") == 0)
        until(lambda: health(one) and health(other))
