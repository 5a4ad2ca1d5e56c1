"""A history that fails, hangs or is too slow costs its own sight, and serving nothing."""

import logging
from functools import partial

import pytest

from service.client import Client
from service.detection.engine import Engine
from service.detection.types import Detection
from service.errors import AdvsentryError, Unavailable
from service.history.types import Observation, Query
from service.rpc.health import HISTORY
from service.watching import observer, telling
from service.watching import watch as watch_module
from tests import tiny
from tests.service.rpc.test_door import until
from tests.service.running import Running, running
from tests.service.watching.world import P_VALUE, Scripted, images


def value(server: Running, name: str, **labels: str) -> float:
    return server.value(f"advsentry_history_{name}", **labels)


def health(server: Running, service: str = HISTORY) -> bool:
    with Client(server.ports.grpc) as client:
        return client.health(service)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "HEALTH_S", 0.01)


@pytest.mark.parametrize("mode", ["observe", "annotate", "reject", "silent"])
def test_a_history_that_fails_stops_nothing(
    engine: Engine, history: Scripted, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    history.error = RuntimeError("the history's own fault")
    with (
        running(engine, open_watch=history.watch(), history=mode, history_flags=1, history_wait_s=10.0) as server,
        Client(server.ports.grpc) as client,
    ):
        rows = client.detect_batch(list(images([True] * 3)))
        assert all(isinstance(row, Detection) for row in rows)
        until(lambda: value(server, "queries_total", outcome="unobserved") == 3)
        until(lambda: not health(server))
        assert value(server, "degraded") == 1
        assert client.is_serving()
        history.error = None
        client.detect(images([False])[0])
        until(lambda: health(server))
        assert value(server, "degraded") == 0
        assert value(server, "queries_total", outcome="observed") == 1
    assert sum("the history's own fault" in (record.exc_text or "") for record in caplog.records) == 1
    assert [record.message for record in caplog.records if record.name == "service.watching.telling"] == [
        "the query history: the history failed: RuntimeError",
        "the query history is well again",
    ]


def test_one_poisoned_image_blinds_nobody(engine: Engine, history: Scripted) -> None:
    poison = images([True])[0]
    plain = history.observe_all

    def observe_all(queries: list[Query]) -> list[Observation]:
        if any(query.image.tobytes() == poison.tobytes() for query in queries):
            raise ValueError("poison")
        return plain(queries)

    history.observe_all = observe_all  # type: ignore[method-assign, assignment]
    history.goes_on.clear()
    with (
        running(engine, open_watch=history.watch(), history="observe") as server,
        Client(server.ports.grpc) as client,
    ):
        first, *rest = images([False] * 5)
        client.detect(first)  # holds up the others, which are taken together then
        for image in (*rest[:2], poison, *rest[2:]):
            client.detect(image)
        history.goes_on.set()
        until(lambda: value(server, "queries_total", outcome="observed") == 5)
        until(lambda: value(server, "queries_total", outcome="unobserved") == 1)


def test_a_history_that_hangs_stops_nothing(engine: Engine, history: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "STUCK_S", 0.05)
    monkeypatch.setattr(observer, "MOST_ITEMS", 4)
    monkeypatch.setattr(watch_module, "FORGIVE_S", 0.05)
    history.goes_on.clear()
    with (
        running(engine, open_watch=history.watch(), history="annotate", history_wait_s=0.001) as server,
        Client(server.ports.grpc) as client,
    ):
        for image in images([True] * 7):
            assert isinstance(client.detect(image), Detection)
        assert value(server, "queries_total", outcome="unobserved") == 3
        assert value(server, "queue_items") == 4
        until(lambda: not health(server))
        assert health(server, "ready")
        late = value(server, "late_total")
        client.detect(images([True])[0])
        assert value(server, "late_total") == late  # nobody waits for what is stuck
        watch = server.app.models.current.watch
        assert watch is not None
        with pytest.raises(Unavailable, match="cannot drop its evidence: no answer"):
            watch.forgive("shop")
        history.goes_on.set()
        until(lambda: health(server))
        until(lambda: value(server, "queue_items") == 0)
        assert value(server, "queries_total", outcome="observed") == 4


def test_a_batch_larger_than_the_queue_is_observed_all_the_same(
    engine: Engine, history: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "MOST_ITEMS", 4)
    with (
        running(engine, open_watch=history.watch(), history="observe") as server,
        Client(server.ports.grpc) as client,
    ):
        client.detect_batch(list(tiny.images(9)))
        until(lambda: value(server, "queries_total", outcome="observed") == 9)


def test_what_another_keeps_is_degraded_as_it_says(engine: Engine, history: Scripted) -> None:
    with running(engine, open_watch=history.watch(), history="observe") as server:
        until(lambda: health(server))
        history.is_degraded, history.degraded_reason = True, "the store does not answer"
        until(lambda: not health(server))
        assert value(server, "degraded") == 1
        history.is_degraded = False
        until(lambda: health(server))


def test_without_a_history_nobody_speaks_of_one(engine: Engine) -> None:
    with running(engine) as server, Client(server.ports.grpc) as client:
        client.detect(tiny.images(1)[0])
        with pytest.raises(AdvsentryError, match="unknown service 'history'"):
            client.health(HISTORY)
        assert value(server, "queries_total", outcome="observed") == 0
        assert value(server, "entries") == 0


def test_the_log_names_who_is_watched_and_says_no_more_than_it_must(
    engine: Engine, history: Scripted, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "LINES_BURST", 3.0)
    monkeypatch.setattr(telling, "LINES_PER_S", 1e-6)
    caplog.set_level(logging.WARNING, "service.watching")
    ask = partial(images, [True])
    with (
        running(engine, open_watch=history.watch(), history="reject", history_flags=2) as server,
        Client(server.ports.grpc) as client,
    ):
        client.detect(ask(component=1)[0])
        for number in range(4):
            client.detect(ask(component=10 + number)[0])
        until(lambda: value(server, "flags_total", scope="everyone") == 5)
    said = [record.message for record in caplog.records if "watched" in record.message]
    assert len(said) == 3
    assert said[0].startswith(f"everyone's component 1 is watched, p = {P_VALUE:.2g}: 7 queries, 2/s")
