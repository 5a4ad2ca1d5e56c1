"""The grpc.aio server: options, port, services."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from service.errors import SetupError
from service.metrics import Metrics
from service.rpc.detector import DetectorServicer
from service.rpc.health import Health
from service.rpc.inference import InferenceServicer
from service.rpc.interceptors import Edge, OnEnd
from service.rpc.reflection import enable_reflection

__all__ = ["ConnectionAge", "build_server"]

MAX_CALLS = 2000
"""The last fence against a flood of calls, health among them; long before it the queue refuses images."""


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
    shared: ConnectionAge | None = None,
    on_end: Sequence[OnEnd] = (),
) -> tuple[grpc.aio.Server, int]:
    """A server that listens at `address` once it is started, and its port.

    Args:
        shared: of one of several processes that share the port.
        on_end: told of each call when it has ended.

    Raises:
        SetupError: the address cannot be had.
    """
    server = grpc.aio.server(
        interceptors=(Edge(metrics, on_end),),
        options=[*_options(max_message_bytes), *_sharing(shared)],
        maximum_concurrent_rpcs=MAX_CALLS,
    )
    server.add_generic_rpc_handlers((servicer.handler(), inference.handler(), health.handler()))
    if with_reflection:
        enable_reflection(server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise SetupError(
            f"gRPC cannot listen on {address}: the port is in use or the address is not this machine's; choose "
            "another with --port or --host"
        ) from error
    return server, port


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_concurrent_streams", 1000),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.server_handshake_timeout_ms", 10_000),
    ]


def _sharing(age: ConnectionAge | None) -> list[tuple[str, int]]:
    if age is None:  # on by default, it would let a second server take half of the first one's calls
        return [("grpc.so_reuseport", 0)]
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_connection_age_ms", int(1000 * age.most_s)),
        ("grpc.max_connection_age_grace_ms", int(1000 * age.grace_s)),
    ]
