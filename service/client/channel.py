"""What both clients say to gRPC: when a call is tried again, and how its end becomes an error of ours."""

import json
import random
import re

import grpc

from service.errors import AdvsentryError, Unavailable
from service.rpc.convert import SERVICE
from service.rpc.status import error_of

__all__ = [
    "DEFAULT_TARGET",
    "MAX_ATTEMPTS",
    "MAX_MESSAGE_BYTES",
    "OPTIONS",
    "USUAL_LIMIT_BYTES",
    "backoff_s",
    "cancelled_by_server",
    "error_from",
]

DEFAULT_TARGET = "127.0.0.1:50051"
MAX_MESSAGE_BYTES = 64 * 2**20
"""Of this client; a server's limit is mostly lower."""
USUAL_LIMIT_BYTES = 16 * 2**20
"""What servers take unless they are told otherwise."""
MAX_ATTEMPTS = 4
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.1, 2.0

_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],  # of a name that has several addresses
    "methodConfig": [
        {
            "name": [{"service": SERVICE, "method": name} for name in ("Detect", "BatchDetect", "GetModelInfo")],
            "retryPolicy": {
                "maxAttempts": MAX_ATTEMPTS,
                "initialBackoff": f"{_FIRST_BACKOFF_S}s",
                "maxBackoff": f"{_LONGEST_BACKOFF_S}s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["RESOURCE_EXHAUSTED", "UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
}
"""A detection changes nothing, so that trying again is safe. A server without room says when to come back; gRPC waits
for that. CANCELLED from a server is gRPC's own word for a call that it had not taken when it stopped, or of which too
many waited to be taken. A stream is opened again by the clients, which know what of it is answered."""

OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),  # a server whose machine is gone is noticed in a stream, too
    ("grpc.keepalive_timeout_ms", 10_000),
]


_NO_CONNECTION = {
    "CERTIFICATE_VERIFY_FAILED|BAD_SIGNATURE|Hostname Verification|Peer name": (
        "the certificate of {target} is not trusted: it has ended, is of other roots than --ca, or of another name"
    ),
    "WRONG_VERSION_NUMBER": "{target} speaks no TLS; leave --ca, --cert and --tls out, or start the server with TLS",
    "[Hh]andshake failed": "TLS with {target} failed; check --ca, --cert and --key",
    "all backends failing.*(Socket closed|SETTINGS|GOAWAY|reset)": (
        "{target} ends each connection: it may want TLS (--ca), or another certificate of yours (--cert, --key), or is "
        "no gRPC port"
    ),
    "resolv": "the address of {target} is not found; expected HOST:PORT",
    "connect": "no server answers at {target}; start one with `advsentry serve`",
}
"""What gRPC says of a connection that did not come about, by its words, the first that is found, and what it means."""


def backoff_s(attempt: int) -> float:
    """Seconds to wait before an attempt, the second of all being 1.

    A part of it is chance, so that many clients do not come back together.
    """
    longest: float = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)


def cancelled_by_server() -> AdvsentryError:
    """What it means when a call is cancelled and not by its caller."""
    return error_of(grpc.StatusCode.CANCELLED, "", {})


def error_from(target: str, error: grpc.RpcError) -> AdvsentryError:
    """What a call's end means.

    Args:
        error: of a call of either kind of channel.
    """
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return AdvsentryError(f"{target}: {error}")
    trailers = {str(key): str(value) for key, value in error.trailing_metadata() or ()}
    made = error_of(error.code(), error.details() or "", trailers)
    if isinstance(made, Unavailable):
        for words, meaning in _NO_CONNECTION.items():
            if re.search(words, str(made)):
                return Unavailable(meaning.format(target=target))
    if made.args == ("UNIMPLEMENTED: Method not found!",):
        return AdvsentryError(
            f"{target} does not serve this call: is it the server's gRPC port, and its version yours?"
        )
    return made
