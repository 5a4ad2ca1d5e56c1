"""The edge: every way in which a call can end, in all four shapes, is its right status and is counted once."""

import asyncio
import contextlib
import gc
import itertools
import logging
import sys
import weakref
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry

from service.errors import InvalidRequest
from service.metrics import Metrics
from service.rpc.access import Access
from service.rpc.call import ANONYMOUS, Call, begin_call
from service.rpc.intake import Intake
from service.rpc.interceptors import Edge, _abort, _Call, _Counting, _End, _why_cancelled

CODE = grpc.StatusCode
SERVICE = "test.Shapes"
SHAPES = {
    "UnaryUnary": ("unary", 1, 1),
    "UnaryStream": ("server_stream", 1, 2),
    "StreamUnary": ("client_stream", 2, 1),
    "StreamStream": ("bidi_stream", 2, 2),
}
"""Each shape's label, and how many messages go in and out when all is well."""
ENDS = {
    b"ok": CODE.OK,
    b"error": CODE.INVALID_ARGUMENT,
    b"abort": CODE.FAILED_PRECONDITION,
    b"raise": CODE.INTERNAL,
    b"decode": CODE.INVALID_ARGUMENT,
    b"cancel": CODE.CANCELLED,
    b"deadline": CODE.DEADLINE_EXCEEDED,
}


async def behave(how: bytes, context: Any) -> None:
    if how == b"error":
        raise InvalidRequest("ours")
    if how == b"abort":
        await context.abort(CODE.FAILED_PRECONDITION, "aborted")
    if how == b"raise":
        raise ValueError("secret")
    if how == b"decode":
        raise DecodeError("not ours")
    if how in (b"cancel", b"deadline"):
        await asyncio.Event().wait()


async def unary_unary(request: bytes, context: Any) -> bytes:
    await behave(request, context)
    return b"answer"


async def unary_stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
    await behave(request, context)
    for _ in range(2):
        yield b"answer"


async def stream_unary(requests: AsyncIterator[bytes], context: Any) -> bytes:
    async for request in requests:
        await behave(request, context)
    return b"answer"


async def stream_stream(requests: AsyncIterator[bytes], context: Any) -> None:
    async for request in requests:
        await behave(request, context)
        await context.write(b"answer")


def handler() -> grpc.GenericRpcHandler:
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "UnaryUnary": grpc.unary_unary_rpc_method_handler(unary_unary),
        "UnaryStream": grpc.unary_stream_rpc_method_handler(unary_stream),
        "StreamUnary": grpc.stream_unary_rpc_method_handler(stream_unary),
        "StreamStream": grpc.stream_stream_rpc_method_handler(stream_stream),
    }
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


async def messages(how: bytes) -> AsyncIterator[bytes]:
    yield how
    if how != b"ok":  # a client that still sends while its call ends may see an error of its own making
        await asyncio.Event().wait()
    yield how


def begun(channel: grpc.aio.Channel, shape: str, how: bytes) -> Any:
    """A call that is under way."""
    path, timeout = f"/{SERVICE}/{shape}", 0.2 if how == b"deadline" else 20.0
    if shape == "UnaryUnary":
        return channel.unary_unary(path)(how, timeout=timeout)
    if shape == "UnaryStream":
        return channel.unary_stream(path)(how, timeout=timeout)
    if shape == "StreamUnary":
        return channel.stream_unary(path)(messages(how), timeout=timeout)
    return channel.stream_stream(path)(messages(how), timeout=timeout)


async def scene(shape: str, how: bytes, registry: CollectorRegistry) -> tuple[grpc.StatusCode, str]:
    """Plays one call to its end; gives what the client saw."""
    server = grpc.aio.server(interceptors=(Edge(Metrics(registry), Access(), Intake(2**20)),))
    server.add_generic_rpc_handlers((handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    kind = SHAPES[shape][0]
    labels = {"grpc_type": kind, "grpc_service": SERVICE, "grpc_method": shape}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = begun(channel, shape, how)
        if how == b"cancel":
            while not registry.get_sample_value("grpc_server_msg_received_total", labels):
                await asyncio.sleep(0.005)
            call.cancel()
        if SHAPES[shape][2] > 1:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                assert [answer async for answer in call] == [b"answer"] * 2
        code, text = await call.code(), await call.details()
        while not registry.get_sample_value("grpc_server_handling_seconds_count", labels):
            await asyncio.sleep(0.005)
    await server.stop(None)
    return code, text or ""


@pytest.mark.parametrize(
    ("left", "code"),
    [(None, CODE.CANCELLED), (20.0, CODE.CANCELLED), (0.09, CODE.DEADLINE_EXCEEDED), (-0.1, CODE.DEADLINE_EXCEEDED)],
)
def test_a_client_that_leaves_as_its_time_ends_counts_as_one_whose_time_was_up(
    left: float | None, code: grpc.StatusCode
) -> None:
    class Context:
        def time_remaining(self) -> float | None:
            return left

    assert _why_cancelled(Context()) is code  # type: ignore[arg-type]


@pytest.mark.parametrize(("shape", "how"), list(itertools.product(SHAPES, ENDS)), ids=str)
def test_a_call_ends_with_its_status_and_is_counted_once(
    shape: str, how: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    with caplog.at_level(logging.ERROR):
        code, text = asyncio.run(asyncio.wait_for(scene(shape, how, registry), 30))
    assert code is ENDS[how], text
    assert "secret" not in text
    kind, received, sent = SHAPES[shape]
    labels = {"grpc_type": kind, "grpc_service": SERVICE, "grpc_method": shape}
    if how != b"ok":
        received, sent = 1, 0
    expected = {
        "grpc_server_started_total": 1,
        "grpc_server_handling_seconds_count": 1,
        "grpc_server_msg_received_total": received,
        "grpc_server_msg_sent_total": sent,
    }
    assert {name: registry.get_sample_value(name, labels) for name in expected} == expected
    samples = [sample for family in registry.collect() for sample in family.samples if sample.value]
    handled = [sample for sample in samples if sample.name == "grpc_server_handled_total"]
    assert [(sample.labels, sample.value) for sample in handled] == [({**labels, "grpc_code": code.name}, 1)]
    requests = [sample for sample in samples if sample.name == "advsentry_requests_total"]
    assert [(sample.labels, sample.value) for sample in requests] == [({"code": code.name}, 1)]
    errors = [record for record in caplog.records if record.name.startswith("service")]
    assert len(errors) == (how == b"raise")


def test_invented_methods_share_one_row() -> None:
    async def scene() -> list[grpc.StatusCode]:
        server = grpc.aio.server(interceptors=(Edge(Metrics(registry), Access(), Intake(2**20)),))
        server.add_generic_rpc_handlers((handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            calls = [channel.unary_unary(f"/invented{i}.Service/Method{i}")(b"") for i in range(20)]
            calls += [channel.unary_unary(f"/{SERVICE}/Method{i}")(b"") for i in range(20)]
            codes = [await call.code() for call in calls]
        await server.stop(None)
        return codes

    registry = CollectorRegistry()
    assert set(asyncio.run(asyncio.wait_for(scene(), 30))) == {CODE.UNIMPLEMENTED}
    labels = {"grpc_type": "unary", "grpc_service": "unknown", "grpc_method": "unknown"}
    assert registry.get_sample_value("grpc_server_started_total", labels) == 40
    started = [
        sample.labels
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "grpc_server_started_total"
    ]
    assert started == [labels]


def test_a_status_for_one_who_has_gone_is_no_error() -> None:
    class Gone:
        async def abort(self, *_: object) -> None:
            raise grpc.aio.InternalError("execute_batch failed")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(_abort(Gone(), grpc.StatusCode.DEADLINE_EXCEEDED, "late", ()))  # type: ignore[arg-type]


def test_an_answer_for_one_who_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise grpc.aio.InternalError("execute_batch failed")

    written: list[str] = []

    class Gone:
        time_remaining = set_trailing_metadata = None
        write = fails

    counts = Metrics(CollectorRegistry()).rpc("bidi_stream", "service", "method", False)
    monkeypatch.setattr(counts, "sent", type("Counter", (), {"inc": lambda: written.append("counted")}))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(_Counting(Gone(), counts).write(b""))  # type: ignore[arg-type]
    assert not written


def test_a_refused_call_leaves_nothing_for_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    class Held:
        pass

    async def refuse(how: bytes, context: Any) -> None:
        held = Held()  # as a message is
        held_ones.append(weakref.ref(held))
        raise InvalidRequest("ours")

    held_ones: list[weakref.ref[Held]] = []
    monkeypatch.setattr(sys.modules[__name__], "behave", refuse)
    gc.disable()
    try:
        asyncio.run(asyncio.wait_for(scene("UnaryUnary", b"error", CollectorRegistry()), 30))
        assert [held() for held in held_ones] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize("does", ["begin", "refuse"])
def test_one_who_has_left_already_is_neither_served_nor_told(does: str) -> None:
    done: list[str] = []

    class Left:
        def time_remaining(self) -> None:
            return None

        def invocation_metadata(self) -> tuple[()]:
            return ()

        async def abort(self, *_: object) -> None:
            done.append("told")

    async def serve(_: Call) -> None:
        done.append("served")
        asyncio.get_running_loop().call_soon(task.cancel)  # as gRPC does, a turn after it gave the call
        if does == "refuse":
            raise InvalidRequest("ours")

    async def scene() -> None:
        nonlocal task
        context: Any = Left()
        call = _Call(
            context, Metrics(CollectorRegistry()).rpc("unary", SERVICE, "M", True), begin, _End(SERVICE, "M", ())
        )
        task = asyncio.create_task(call.run(serve))
        if does == "begin":
            asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    def begin(_: object) -> Call:
        return begin_call(ANONYMOUS)

    task: asyncio.Task[Any]
    asyncio.run(scene())
    assert done == (["served"] if does == "refuse" else [])
