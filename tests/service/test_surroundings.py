"""The machine around the service may misbehave: a clock that jumps, names that are not found."""

import socket
import time
import urllib.request

import pytest

from protos import detection_pb2 as pb
from protos import detection_pb2_grpc
from service.detection.engine import Engine
from tests.service.running import running
from tests.service.test_reload import request


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_a_clock_that_jumps_ends_no_call(engine: Engine, monkeypatch: pytest.MonkeyPatch, jump_s: int) -> None:
    right = time.time
    with running(engine, canary_s=0.05) as server:
        monkeypatch.setattr(time, "time", lambda: right() + jump_s)
        # without a deadline of its own: gRPC's clients count by the clock, and this one is in the same process
        item = pb.StreamDetectRequest(image=request().image)
        answers = list(detection_pb2_grpc.DetectorServiceStub(server.channel).StreamDetect(iter([item] * 3)))
        assert [answer.result.WhichOneof("outcome") for answer in answers] == ["detection"] * 3
        before = server.value("advsentry_canary_last_success_timestamp_seconds")
        latest = time.monotonic() + 20
        while server.value("advsentry_canary_last_success_timestamp_seconds") == before:  # the canary goes on, too
            assert time.monotonic() < latest
            time.sleep(0.01)
        assert server.value("advsentry_ready") == 1


def test_without_names_the_metrics_are_served(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise OSError("no names")

    for name in ("getfqdn", "gethostbyaddr", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    with (
        running(engine) as server,
        urllib.request.urlopen(f"http://{server.ports.metrics}/metrics", timeout=20) as answer,
    ):
        assert answer.status == 200
