"""What a stranger may do to a port: connections, streams, pings and messages that no client would send."""

import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest

from protos import detection_pb2 as pb
from protos import detection_pb2_grpc
from service.detection.engine import Engine
from service.errors import Overloaded
from service.rpc import intake, server
from service.rpc.rates import Slots
from tests.service import h2
from tests.service.rpc.test_door import CODE, DETECT, GOOD, SERVICE, until
from tests.service.running import Running, running

PATH = f"/{SERVICE}/Detect"
SOON_S = 20.0  # for what takes half a second on a machine that has time


@pytest.fixture(scope="module")
def usual(engine: Engine) -> Iterator[Running]:
    with running(engine, canary_s=100.0) as made:
        yield made


def serves(made: Running) -> bool:
    stub = detection_pb2_grpc.DetectorServiceStub(made.channel)
    return bool(stub.Detect(pb.DetectRequest(image=GOOD), timeout=SOON_S).detection.top.label)


def handled(made: Running, code: str) -> float:
    return made.value("grpc_server_handled_total", **DETECT, grpc_code=code)


def open_call(number: int, path: str = PATH, *more: tuple[str, str]) -> bytes:
    return h2.frame(h2.HEADERS, h2.request(path, *more), flags=h2.END_HEADERS, stream=2 * number + 1)


def part_of_message(number: int) -> bytes:
    """The first bytes of 12 MiB."""
    return h2.frame(h2.DATA, b"\0" + struct.pack(">I", 12 * 2**20) + b"x" * 5000, stream=2 * number + 1)


@pytest.mark.parametrize(
    ("limits", "hello"),
    [
        ({"grpc.server_handshake_timeout_ms": 300}, False),
        ({"grpc.max_connection_idle_ms": 300}, True),
        ({"grpc.keepalive_time_ms": 300, "grpc.http2.ping_timeout_ms": 300}, True),
    ],
    ids=["says nothing", "idle", "answers no ping"],
)
def test_a_connection_that_does_nothing_is_closed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], hello: bool
) -> None:
    for name, value in limits.items():
        assert name in server.LIMITS
        monkeypatch.setitem(server.LIMITS, name, value)
    with running(engine, canary_s=100.0) as made, h2.Connection(made.ports.grpc, hello=hello) as connection:
        if hello and "grpc.keepalive_time_ms" in limits:
            connection.send(open_call(0, f"/{SERVICE}/StreamDetect"))  # busy, so far as gRPC knows
        assert connection.is_closed_within(SOON_S)
        assert serves(made)


def test_a_connection_too_many_is_closed_and_those_who_are_there_are_served(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(server.LIMITS, "grpc.max_allowed_incoming_connections", 5)
    with running(engine, canary_s=100.0) as made, ExitStack() as stack:
        assert serves(made)
        for _ in range(4):
            next(stack.enter_context(h2.Connection(made.ports.grpc)).frames(SOON_S))  # its settings came: it is in
        with h2.Connection(made.ports.grpc) as one_more:
            assert one_more.is_closed_within(SOON_S)
        assert serves(made)


def test_many_idle_connections_harm_nobody_and_leave_nothing(usual: Running) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(h2.Connection(usual.ports.grpc))
        until(lambda: len(os.listdir("/proc/self/fd")) >= before + 400, SOON_S)  # both ends are ours
        assert serves(usual)
    until(lambda: len(os.listdir("/proc/self/fd")) <= before + 5, SOON_S)


def test_a_flood_of_pings_is_closed(usual: Running) -> None:
    with h2.Connection(usual.ports.grpc) as connection:
        connection.send(*[h2.frame(h2.PING, b"12345678")] * 100)
        last = [frame for frame in connection.frames(SOON_S) if frame.kind == h2.GOAWAY][-1]
        assert b"too_many_pings" in last.payload
    assert serves(usual)


def test_rapid_resets_harm_nobody_and_leave_nothing(usual: Running) -> None:
    with h2.Connection(usual.ports.grpc) as connection:
        for start in range(0, 5000, 100):
            calls = range(start, start + 100)
            assert connection.send(
                *[open_call(i) + h2.frame(h2.RST_STREAM, h2.CANCEL, stream=2 * i + 1) for i in calls]
            )
        assert serves(usual)
    codes = ("OK", "CANCELLED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL")
    started = usual.value("grpc_server_started_total", **DETECT)
    until(lambda: sum(handled(usual, code) for code in codes) == started, SOON_S)
    assert handled(usual, "INTERNAL") == 0


def test_a_connection_has_so_many_streams_and_no_more(usual: Running) -> None:
    most = server.LIMITS["grpc.max_concurrent_streams"]
    with h2.Connection(usual.ports.grpc) as connection:
        frames = connection.frames(SOON_S)
        while next(frames).kind != h2.SETTINGS:
            pass
        connection.send(*map(open_call, range(most + 1)))
        refused = next(frame for frame in frames if frame.kind in (h2.RST_STREAM, h2.GOAWAY))
        assert refused.kind == h2.GOAWAY or refused.stream == 2 * most + 1
    assert serves(usual)


def test_a_message_that_does_not_come_ends_its_call(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "ARRIVE_S", 0.3)
    with running(engine, canary_s=100.0) as made, h2.Connection(made.ports.grpc) as connection:
        connection.send(*map(open_call, range(20)), *map(part_of_message, range(10)))
        until(lambda: handled(made, "DEADLINE_EXCEEDED") == 20, SOON_S)
        assert serves(made)


def test_slow_messages_make_way_for_others(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_ARRIVING", 8)
    monkeypatch.setattr(intake, "SLOW_S", 0.2)
    with running(engine, canary_s=100.0) as made, h2.Connection(made.ports.grpc) as connection:
        connection.send(*map(open_call, range(8)))
        until(lambda: made.value("grpc_server_started_total", **DETECT) == 8, SOON_S)
        assert handled(made, "DEADLINE_EXCEEDED") == 0
        time.sleep(0.3)
        assert serves(made)
        until(lambda: handled(made, "DEADLINE_EXCEEDED") == 1, SOON_S)


def test_the_bytes_of_requests_under_way_are_bounded(engine: Engine) -> None:
    with running(engine, canary_s=100.0, held_bytes=2048) as made:
        stub = detection_pb2_grpc.DetectorServiceStub(made.channel)
        large = pb.DetectRequest(image=GOOD, options=pb.DetectOptions(detectors=["contrast"] * 300))
        assert large.ByteSize() > 2048
        assert stub.Detect(large).detection.top.label  # alone it may be as large as a message may
        calls = [stub.Detect.future(large) for _ in range(50)]
        codes = {call.code() for call in calls}
        assert CODE.OK in codes
        assert codes <= {CODE.OK, CODE.RESOURCE_EXHAUSTED}
        assert serves(made)  # what was held is given back


def test_one_caller_does_not_take_all_calls(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.security.MAX_CALLS", 40)
    labels = {**DETECT, "grpc_type": "bidi_stream", "grpc_method": "StreamDetect"}

    with running(engine, canary_s=100.0) as made:

        def ended(code: str) -> float:
            return made.value("grpc_server_handled_total", **labels, grpc_code=code)

        with h2.Connection(made.ports.grpc) as connection:
            connection.send(*[open_call(i, f"/{SERVICE}/StreamDetect") for i in range(60)])
            until(lambda: ended("RESOURCE_EXHAUSTED") == 40, SOON_S)
            assert serves(made)
        until(lambda: ended("CANCELLED") == 20, SOON_S)


def test_what_a_loop_cannot_keep_up_with_is_cancelled_at_once_and_the_rest_is_answered(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(server.LIMITS, "grpc.server.max_pending_requests", 20)
    monkeypatch.setitem(server.LIMITS, "grpc.server.max_pending_requests_hard_limit", 30)
    with running(engine, canary_s=100.0) as made:
        assert serves(made)
        before = made.value("grpc_server_started_total", **DETECT)
        stands, goes_on = threading.Event(), threading.Event()
        made.loop.call_soon_threadsafe(lambda: (stands.set(), goes_on.wait(SOON_S)))
        assert stands.wait(SOON_S)
        stub = detection_pb2_grpc.DetectorServiceStub(made.channel)
        calls = [stub.Detect.future(pb.DetectRequest(image=GOOD), timeout=2 * SOON_S) for _ in range(100)]
        try:
            until(lambda: sum(call.done() for call in calls) >= 68, SOON_S)  # two may be on their way to the loop
            assert {call.code() for call in calls if call.done()} == {CODE.CANCELLED}
            assert made.value("grpc_server_started_total", **DETECT) == before  # the loop stands still
        finally:
            goes_on.set()
        codes = Counter(call.code() for call in calls)
        assert set(codes) == {CODE.OK, CODE.CANCELLED}
        assert codes[CODE.OK] >= 20  # what may wait without a chance of being cancelled
        assert made.value("grpc_server_started_total", **DETECT) == before + codes[CODE.OK]
        assert serves(made)


@pytest.mark.parametrize("path", ["/inference.GRPCInferenceService/ServerReady", "/grpc.health.v1.Health/Check", PATH])
def test_a_flood_of_calls_that_nobody_knows_sheds_no_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setitem(server.LIMITS, "grpc.server.max_pending_requests", 20)
    monkeypatch.setitem(server.LIMITS, "grpc.server.max_pending_requests_hard_limit", 30)
    message = pb.DetectRequest(image=GOOD).SerializeToString() if path == PATH else b""
    with running(engine, canary_s=100.0) as made:
        assert serves(made)
        stands, goes_on = threading.Event(), threading.Event()
        made.loop.call_soon_threadsafe(lambda: (stands.set(), goes_on.wait(SOON_S)))
        assert stands.wait(SOON_S)
        unknown: list[grpc.Future[bytes]] = [
            made.channel.unary_unary("/x.Nobody/None").future(b"", timeout=2 * SOON_S) for _ in range(100)
        ]
        try:
            until(lambda: sum(call.done() for call in unknown) >= 68, SOON_S)
            other: grpc.Future[bytes] = made.channel.unary_unary(path).future(message, timeout=2 * SOON_S)
            time.sleep(0.1)
            assert not other.done()
        finally:
            goes_on.set()
        assert other.result() is not None


def test_all_calls_of_two_connections_may_wait_for_the_loop() -> None:
    limits = server.LIMITS
    assert 2 * limits["grpc.max_concurrent_streams"] <= limits["grpc.server.max_pending_requests"]
    assert limits["grpc.server.max_pending_requests"] < limits["grpc.server.max_pending_requests_hard_limit"]


def test_a_quarter_of_the_calls_is_for_each_once_half_are_taken() -> None:
    slots = Slots(8)
    for _ in range(4):
        slots.take("a")
    with pytest.raises(Overloaded, match="you have 4 calls open"):
        slots.take("a")
    slots.take("b")
    slots.take("b")
    with pytest.raises(Overloaded):
        slots.take("b")
    for key in "aaaabb":
        slots.give(key)
    assert not slots._of
    slots.take("a")


@pytest.mark.parametrize("how", ["one field", "many fields", "no end"])
def test_metadata_without_measure_is_refused(usual: Running, how: str) -> None:
    if how == "no end":
        with h2.Connection(usual.ports.grpc) as connection:
            connection.send(h2.frame(h2.HEADERS, h2.request(PATH), stream=1))
            for _ in range(100):
                connection.send(h2.frame(h2.CONTINUATION, h2.field("a", "b" * 1000) * 10, stream=1))
    else:
        metadata = [("x", "y" * 50_000)] if how == "one field" else [("x", "y")] * 2000
        call = usual.channel.unary_unary(PATH).future(b"", metadata=metadata, timeout=SOON_S)
        assert call.code() is CODE.RESOURCE_EXHAUSTED
    assert serves(usual)


def test_health_has_the_last_word(usual: Running) -> None:
    with h2.Connection(usual.ports.grpc) as connection:
        connection.send(*map(open_call, range(200)))
        check = usual.channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=SOON_S) == b"\x08\x01"
