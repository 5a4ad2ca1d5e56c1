"""The grpc.aio server: options, port, services."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from service.errors import SetupError
from service.metrics import Metrics
from service.rpc import convert, convert_inference
from service.rpc.access import Access, is_probe, takes_images
from service.rpc.closing import Closing
from service.rpc.detector import DetectorServicer
from service.rpc.health import HEALTH, Health
from service.rpc.inference import InferenceServicer
from service.rpc.intake import Intake
from service.rpc.interceptors import Edge, OnEnd
from service.rpc.reflection import enable_reflection
from service.rpc.tls import ServerTls

__all__ = ["ConnectionAge", "build_health_server", "build_server"]


MAX_CALLS = 2000
"""The last fence against a flood of calls, health among them; long before it the queue refuses images."""

LIMITS = {
    "grpc.max_allowed_incoming_connections": 4000,  # idle ones cost memory
    "grpc.max_concurrent_streams": 256,  # of a connection; a client sends more as soon as some are answered
    "grpc.http.overload_protection": 0,  # it refuses streams as long as ended ones are not released: see below
    "grpc.max_metadata_size": 16 * 1024,  # above it a call is refused, and what follows is read and dropped
    "grpc.max_connection_idle_ms": 300_000,  # without a call
    "grpc.keepalive_time_ms": 60_000,  # finds connections whose other end is gone
    "grpc.http2.ping_timeout_ms": 20_000,  # what ends them; grpc.keepalive_timeout_ms alone did not
    "grpc.http2.min_ping_interval_without_data_ms": 10_000,  # our clients ping every 30 s, and in a stream only
    "grpc.http2.max_ping_strikes": 2,  # a flood of pings is closed at the third
    "grpc.server_handshake_timeout_ms": 10_000,  # in which TLS and the settings of HTTP/2 must have come
    "grpc.server.max_pending_requests": 512,  # that wait for the loop in one queue: all that two connections may have
    "grpc.server.max_pending_requests_hard_limit": 640,  # between the two by chance, the more the fuller
}
"""Against floods; `tests/service/test_floods.py` does what they are there for. R-8 of the reliability sheet times other
callers meanwhile, and beside rapid resets, for which there is no limit.

gRPC's own overload protection counts streams that have ended against a connection's limit until they are released, and
refuses new ones: a client with hundreds of calls under way, which wait in the client for their turn, saw some of them
fail as UNAVAILABLE, uncounted, as soon as the server was busy.

A loop that cannot even refuse what comes falls behind until every call is handed over too late. So what waits for it is
bounded: gRPC cancels what is above that by itself, at a small part of what a refusal of ours costs. It knows no
callers: who floods with three connections and more has others' calls cancelled, which would have been late."""

PLAIN_ONLY = ("grpc.compression_enabled_algorithms_bitset", 1)
"""Bit 0 is the plain form."""

_HEALTH_CALLS = 100
_HEALTH_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class ConnectionAge:
    """For how long a connection stays with one of the processes that share a port."""

    most_s: float
    """After that its client is asked to connect anew."""
    grace_s: float
    """After that again its calls are ended."""


def build_server(
    servicer: DetectorServicer,
    inference: InferenceServicer,
    health: Health,
    *,
    metrics: Metrics,
    address: str,
    max_message_bytes: int,
    with_reflection: bool,
    with_compression: bool,
    access: Access,
    held_bytes: int,
    closing: Closing | None = None,
    tls: ServerTls | None = None,
    shared: ConnectionAge | None = None,
    on_end: Sequence[OnEnd] = (),
) -> tuple[grpc.aio.Server, int]:
    """A server that listens at `address` once it is started, and its port.

    Args:
        with_compression: whether messages may come in gzip or deflate; else gRPC answers UNIMPLEMENTED.
        closing: what becomes of calls that come when the server is about to stop.
        shared: of one of several processes that share the port.
        on_end: told of each call when it has ended.

    Raises:
        SetupError: the address cannot be had.
    """
    server = grpc.aio.server(
        interceptors=(
            Edge(metrics, access, Intake(held_bytes), on_end, {f"/{convert.SERVICE}/Detect": servicer.door}, closing),
        ),
        options=[*_options(max_message_bytes), *_sharing(shared), *([] if with_compression else [PLAIN_ONLY])],
        maximum_concurrent_rpcs=MAX_CALLS,
    )
    _add(server, convert.SERVICE, servicer.handlers())
    _add(server, convert_inference.SERVICE, inference.handlers())
    _add(server, HEALTH, health.handlers())
    if with_reflection:
        enable_reflection(server)
    return server, _listen(server, address, tls, "--port or --host")


def build_health_server(
    health: Health, *, metrics: Metrics, address: str, shared: ConnectionAge | None = None
) -> tuple[grpc.aio.Server, int]:
    """A plaintext server of health and nothing else, for probes that have no certificate, and its port.

    Args:
        shared: as of `build_server`.

    Raises:
        SetupError: the address cannot be had.
    """
    server = grpc.aio.server(
        interceptors=(Edge(metrics, Access(), Intake(_HEALTH_CALLS * _HEALTH_BYTES)),),
        options=[*_options(_HEALTH_BYTES), *_sharing(shared)],
        maximum_concurrent_rpcs=_HEALTH_CALLS,
    )
    _add(server, HEALTH, health.handlers())
    return server, _listen(server, address, None, "--health-port or --health-host")


def _add(server: grpc.aio.Server, service: str, handlers: "dict[str, grpc.RpcMethodHandler[bytes, bytes]]") -> None:
    """Adds a service.

    gRPC hands over calls one at a time, those of each registered method by themselves: so neither a probe of health nor
    a Detect call waits behind a flood of calls of another method. All others share one queue. Each such method costs
    every call a little.
    """
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    apart = {
        name: handler
        for name, handler in handlers.items()
        if is_probe(f"/{service}/{name}") or takes_images(f"/{service}/{name}")
    }
    server.add_registered_method_handlers(service, apart)


def _listen(server: grpc.aio.Server, address: str, tls: ServerTls | None, flags: str) -> int:
    try:
        if tls is not None:
            return server.add_secure_port(address, tls.credentials())
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise SetupError(
            f"gRPC cannot listen on {address}: the port is in use or the address is not this machine's; choose "
            f"another with {flags}"
        ) from error


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    sizes = {"grpc.max_receive_message_length": max_message_bytes, "grpc.max_send_message_length": max_message_bytes}
    return [*sizes.items(), *LIMITS.items()]


def _sharing(age: ConnectionAge | None) -> list[tuple[str, int]]:
    if age is None:  # on by default, it would let a second server take half of the first one's calls
        return [("grpc.so_reuseport", 0)]
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_connection_age_ms", int(1000 * age.most_s)),
        ("grpc.max_connection_age_grace_ms", int(1000 * age.grace_s)),
    ]
