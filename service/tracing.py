"""A trace of each call, made when it has ended; takes the packages of the extra `otel`.

Of our own, since the library's interceptor reads the answers of a stream from a generator and our handlers write theirs
to the context: with it every StreamDetect would fail.
"""

import time

import grpc
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.rpc.call import Call, EndedCall

__all__ = ["Tracing"]

EXPORT_S = 3
"""Within which a collector must take spans; then they are lost."""
FAILED = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Statuses that are the server's fault, by OpenTelemetry's conventions for gRPC."""
QUIET = ("grpc.health.", "grpc.reflection.")
"""Services without traces, by how their names begin."""


def _resource() -> Resource:
    """What the variables of the SDK say, and our name where they say none."""
    said = Resource.create()
    is_named = not str(said.attributes[SERVICE_NAME]).startswith("unknown_service")
    return said if is_named else said.merge(Resource({SERVICE_NAME: "advsentry"}))


class Tracing:
    """Turns ended calls into spans; holds no image and nothing of its content."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("advsentry")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, endpoint: str) -> "Tracing":
        """Traces that go to a collector by OTLP over gRPC, from a thread of their own.

        Args:
            endpoint: such as `http://127.0.0.1:4317`; https for TLS.
        """
        provider = TracerProvider(resource=_resource())
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"), timeout=EXPORT_S)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    def note(self, ended: EndedCall) -> None:
        """Makes the span of a call, below its caller's, and one below it for each stage."""
        if ended.service.startswith(QUIET):
            return
        end_ns = time.time_ns()
        start_ns = end_ns - int(1e9 * ended.seconds)
        span = self._tracer.start_span(
            f"{ended.service}/{ended.method}",
            context=self._caller(ended),
            kind=SpanKind.SERVER,
            start_time=start_ns,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": ended.service,
                "rpc.method": ended.method,
                "rpc.grpc.status_code": int(grpc.StatusCode[ended.code].value[0]),
            },
        )
        if span.is_recording():
            self._describe(span, ended, start_ns)
        span.end(end_ns)

    def close(self) -> None:
        """Sends what waits; blocks for a few seconds at most."""
        self._provider.shutdown()

    def _caller(self, ended: EndedCall) -> Context:
        carrier = {
            key: value for key, value in ended.metadata if key in self._propagator.fields and isinstance(value, str)
        }
        return self._propagator.extract(carrier, Context())

    def _describe(self, span: Span, ended: EndedCall, start_ns: int) -> None:
        call = ended.call
        span.set_attributes(
            {
                "advsentry.items": call.items,
                "advsentry.bytes": call.size_bytes,
                "advsentry.clean": call.clean,
                "advsentry.adversarial": call.adversarial,
                "advsentry.failed": sum(call.reasons.values()),
                "advsentry.batch_size": call.batch_size,
                "advsentry.model_version": call.model_version,
                "advsentry.reason": ended.reason,
                "advsentry.error_id": ended.error_id,
            }
        )
        if ended.code in FAILED:
            span.set_status(Status(StatusCode.ERROR, ended.code))
        self._add_stages(span, call, start_ns)

    def _add_stages(self, span: Span, call: Call, start_ns: int) -> None:
        """One after the other from the start, each as long as its slowest image took."""
        context = set_span_in_context(span)
        stages = (
            ("decode", call.decode_s),
            ("queue", call.queue_s),
            ("inference", call.inference_s),
            ("verdict", call.verdict_s),
        )
        for name, seconds in stages:
            if seconds > 0:
                stage = self._tracer.start_span(name, context=context, start_time=start_ns)
                start_ns += int(1e9 * seconds)
                stage.end(start_ns)
