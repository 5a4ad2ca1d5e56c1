"""Health by Check and Watch, for probes and load balancers."""

import asyncio
import contextlib
import queue
import threading
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.detection.engine import Engine
from service.detection.manifest import Canary
from service.detection.types import Measurements
from service.rpc import health
from service.rpc.server import MAX_CALLS
from tests import tiny
from tests.service.running import Running, running

KINDS = health_pb2.HealthCheckResponse
SERVICES = ["", "live", "ready", "advsentry.v1.DetectorService", "inference.GRPCInferenceService"]


def check(server: Running, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(server.channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(service=service)).status)


def watch(server: Running, service: str) -> "queue.Queue[int | str]":
    """What a watcher sees, and at last the code that it ends with."""
    seen: queue.Queue[int | str] = queue.Queue()
    answers = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(service=service))

    def follow() -> None:
        try:
            for answer in answers:
                seen.put(answer.status)
        except grpc.RpcError as error:
            seen.put(error.code().name)

    threading.Thread(target=follow, daemon=True).start()
    return seen


@pytest.mark.parametrize("service", SERVICES)
def test_a_running_server_serves(engine: Engine, service: str) -> None:
    with running(engine) as server:
        assert check(server, service) == KINDS.SERVING


def test_an_unknown_service_is_not_found(engine: Engine) -> None:
    with running(engine) as server, pytest.raises(grpc.RpcError) as caught:
        check(server, "nope")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_every_watcher_sees_each_change_and_the_end(engine: Engine) -> None:
    with running(engine, canary_s=100.0) as server:
        watchers = [watch(server, "ready") for _ in range(3)]
        live = watch(server, "live")
        assert [seen.get(timeout=5) for seen in watchers] == [KINDS.SERVING] * 3
        assert live.get(timeout=5) == KINDS.SERVING
        for is_ready, status in ((False, KINDS.NOT_SERVING), (True, KINDS.SERVING)):
            server.loop.call_soon_threadsafe(server.app._health.set_ready, is_ready)
            assert [seen.get(timeout=5) for seen in watchers] == [status] * 3
        assert live.empty()
        asyncio.run_coroutine_threadsafe(server.app.stop(), server.loop).result(10)
        assert [seen.get(timeout=5) for seen in watchers] == [KINDS.NOT_SERVING] * 3
        assert [seen.get(timeout=5) for seen in [*watchers, live]] == ["UNAVAILABLE"] * 4


def test_a_watcher_of_an_unknown_service_is_told_so(engine: Engine) -> None:
    with running(engine) as server:
        assert watch(server, "nope").get(timeout=5) == KINDS.SERVICE_UNKNOWN


class Turning:
    """An engine whose graph may begin to give other answers than it did at export."""

    def __init__(self, engine: Engine) -> None:
        self.is_wrong = False
        self._right = engine.measure
        self.bundle, self.graph, self.resolve_alpha = engine.bundle, engine.graph, engine.resolve_alpha
        self.warm_up = engine.warm_up
        image = tiny.odd_image()
        found = engine.detect(image[None])[0]
        self._canaries = [(Canary(png="", label=found.top.index, verdict=found.verdict), image)]

    def canaries(self) -> list[tuple[Canary, np.ndarray]]:
        return self._canaries

    def measure(self, images: np.ndarray) -> Measurements:
        return self._right(images * 0 if self.is_wrong else images)


def test_a_canary_that_turns_wrong_is_not_ready_until_it_is_right_again(engine: Engine) -> None:
    turning = Turning(engine)
    with running(turning, canary_s=0.02) as server:  # type: ignore[arg-type]
        ready, live = watch(server, "ready"), watch(server, "live")
        assert ready.get(timeout=5) == KINDS.SERVING
        turning.is_wrong = True
        assert ready.get(timeout=5) == KINDS.NOT_SERVING
        assert server.value("advsentry_canary_ok") == 0
        assert server.value("advsentry_ready") == 0
        turning.is_wrong = False
        assert ready.get(timeout=5) == KINDS.SERVING
        assert server.value("advsentry_canary_ok") == 1
        assert live.get(timeout=5) == KINDS.SERVING
        assert live.empty()


def test_a_lost_worker_is_neither_ready_nor_live(engine: Engine) -> None:
    with running(engine, canary_s=0.05) as server:
        worker = server.app.models.current.batcher._worker
        assert worker is not None
        server.loop.call_soon_threadsafe(worker.cancel)
        seen = watch(server, "live")
        while seen.get(timeout=5) != KINDS.NOT_SERVING:
            pass
        assert check(server, "ready") == KINDS.NOT_SERVING


def test_watchers_leave_most_calls_to_others(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 4 * health.MOST_WATCHERS <= MAX_CALLS
    monkeypatch.setattr(health, "MOST_WATCHERS", 2)
    with running(engine, canary_s=100.0) as server:
        stub = health_pb2_grpc.HealthStub(server.channel)
        request = health_pb2.HealthCheckRequest(service="live")
        first, second = stub.Watch(request), stub.Watch(request)
        assert [next(first).status, next(second).status] == [KINDS.SERVING] * 2
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.Watch(request))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert check(server, "live") == KINDS.SERVING
        first.cancel()
        for _ in range(200):  # until the server knows that he left
            with contextlib.suppress(grpc.RpcError):
                assert next(stub.Watch(request)).status == KINDS.SERVING
                break
            time.sleep(0.02)
        else:
            pytest.fail("a watcher who left still counts")
        second.cancel()
