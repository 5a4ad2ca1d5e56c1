"""Traces: one span for each call, below its caller's, whatever the call's form and end."""

import builtins
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from protos import detection_pb2 as pb
from protos import detection_pb2_grpc
from service.detection.engine import Engine
from service.errors import SetupError
from service.rpc.call import Call, EndedCall
from service.settings import Settings
from service.telling import listeners
from service.tracing import Tracing
from tests.service.running import running
from tests.service.test_access_log import SERVICE, calls, ended
from tests.service.test_reload import request

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def servers(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER]


def test_calls_of_all_forms_are_traced_and_go_as_without(
    engine: Engine, exporter: InMemorySpanExporter, tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tracing, "to", lambda endpoint: tracing)
    with running(engine, otel_endpoint="http://127.0.0.1:1") as server:
        calls(server)
        stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        stub.Detect(request(), metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"), ("authorization", "secret")))
        with pytest.raises(grpc.RpcError) as caught:
            stub.Detect(pb.DetectRequest(image=pb.Image(encoded=pb.EncodedImage(data=b"no image"))))
        assert ("x-advsentry-reason", "FORMAT_UNSUPPORTED") in caught.value.trailing_metadata()
    spans = servers(exporter)
    assert [span.name for span in spans] == [
        f"{SERVICE}/Detect",
        f"{SERVICE}/Detect",
        "a.B/C\n",
        f"{SERVICE}/StreamDetect",
        f"{SERVICE}/Detect",
        f"{SERVICE}/Detect",
    ]  # and no probe
    codes = [attributes(span)["rpc.grpc.status_code"] for span in spans]
    assert codes == [0, 3, 12, 0, 0, 3]
    assert [span.status.status_code for span in spans] == [
        StatusCode.ERROR if code == 12 else StatusCode.UNSET for code in codes
    ]
    stream, below = spans[3], spans[4]
    assert (attributes(stream)["advsentry.items"], attributes(stream)["advsentry.failed"]) == (3, 1)
    assert below.context is not None
    assert below.parent is not None
    assert (f"{below.context.trace_id:032x}", f"{below.parent.span_id:016x}") == (TRACE, PARENT)
    assert spans[0].parent is None
    assert "secret" not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_stages_stand_below_the_call_and_within_it(exporter: InMemorySpanExporter, tracing: Tracing) -> None:
    tracing.note(ended(decode_s=0.01, queue_s=0.02, inference_s=0.03, verdict_s=0.001))
    *stages, whole = exporter.get_finished_spans()
    assert whole.context is not None
    assert whole.start_time is not None
    assert whole.end_time is not None
    assert [stage.name for stage in stages] == ["decode", "queue", "inference", "verdict"]
    latest = whole.start_time
    for stage, seconds in zip(stages, (0.01, 0.02, 0.03, 0.001), strict=True):
        assert stage.parent is not None
        assert stage.parent.span_id == whole.context.span_id
        assert stage.start_time == latest
        assert stage.end_time is not None
        assert (stage.end_time - latest) / 1e9 == pytest.approx(seconds)
        latest = stage.end_time
    assert latest <= whole.end_time


@pytest.mark.parametrize("sent", ["", "junk", f"00-{TRACE}-{PARENT}-00", b"\xff"], ids=str)
def test_a_caller_may_send_what_he_likes(exporter: InMemorySpanExporter, tracing: Tracing, sent: str | bytes) -> None:
    call = EndedCall(
        service=SERVICE,
        method="Detect",
        code="OK",
        reason="",
        error_id="",
        seconds=0.1,
        call=Call(),
        metadata=(("traceparent", sent),),
    )
    tracing.note(call)
    assert len(exporter.get_finished_spans()) == (0 if sent == f"00-{TRACE}-{PARENT}-00" else 1)  # "00" is: not sampled


def test_without_the_extra_one_line_names_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name == "service.tracing":
            raise ModuleNotFoundError("No module named 'opentelemetry'", name="opentelemetry")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(SetupError, match=r"not installed \(opentelemetry\): pip install 'advsentry\[otel\]'"):
        listeners(Settings(otel_endpoint="http://127.0.0.1:4317"), None, None)  # type: ignore[arg-type]


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(SetupError, match=r"expected an address such as http://127.0.0.1:4317, got 'localhost'"):
        listeners(Settings(otel_endpoint="localhost"), None, None)  # type: ignore[arg-type]


def test_a_collector_that_is_not_there_holds_nobody_up(engine: Engine) -> None:
    with running(engine, otel_endpoint="http://127.0.0.1:1") as server:
        stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        assert stub.Detect(request(), timeout=20).meta.model_version == "1"
