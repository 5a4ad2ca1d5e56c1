"""What both clients say to gRPC: when a call is tried again, and how its end becomes an error of ours."""

import json
import math
import random
import re
import time

import grpc

from service.errors import AdvsentryError, Overloaded, Unavailable
from service.rpc.convert import SERVICE
from service.rpc.status import error_of

__all__ = [
    "DEFAULT_TARGET",
    "MAX_ATTEMPTS",
    "MAX_MESSAGE_BYTES",
    "OPTIONS",
    "USUAL_LIMIT_BYTES",
    "Reopening",
    "cancelled_by_server",
    "closed_client",
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
    ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),  # a larger message is not sent again: 256 KiB by default
    ("grpc.initial_reconnect_backoff_ms", 100),  # a server that starts anew is there within a second or two
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


_ENDS_AT_ONCE = "all backends failing.*(Socket closed|SETTINGS|GOAWAY|reset)"
_BROKEN = "the connection to {target} broke off and did not come back; the server may be starting anew"
_NO_CONNECTION = {
    "CERTIFICATE_VERIFY_FAILED|BAD_SIGNATURE|Hostname Verification|Peer name": (
        "the certificate of {target} is not trusted: it has ended, is of other roots than --ca, or of another name"
    ),
    "WRONG_VERSION_NUMBER": "{target} speaks no TLS; leave --ca, --cert and --tls out, or start the server with TLS",
    "[Hh]andshake failed": "TLS with {target} failed; check --ca, --cert and --key",
    _ENDS_AT_ONCE: (
        "{target} ends each connection: it may want TLS (--ca), or another certificate of yours (--cert, --key), or is "
        "no gRPC port"
    ),
    "resolv": "the address of {target} is not found; expected HOST:PORT",
    "connect": "no server answers at {target}; start one with `advsentry serve`",
}
"""What gRPC says of a connection that did not come about, by its words, the first that is found, and what it means."""


class Reopening:
    """When a stream that broke off is opened again.

    One that had answers waits as long for its server as one call would, so that a restart is no end of it. One that
    never had any is tried as often as a call is.
    """

    def __init__(self, patience_s: float) -> None:
        """Args: patience_s: seconds from a break to the next answer, at most."""
        self._patience_s = patience_s
        self._attempts = 0  # since the last answer
        self._gives_up = -math.inf  # monotonic time
        self._had_answer = False

    def answered(self) -> None:
        """Notes an answer: what comes next is a new break."""
        self._had_answer = True
        self._attempts = 0

    def wait_s(self, failure: AdvsentryError) -> float | None:
        """Seconds until it is opened again; None when it is given up.

        A part of them is chance, so that many clients do not come back together.
        """
        now = time.monotonic()
        if not self._attempts:
            self._gives_up = now + self._patience_s if self._had_answer else now
        self._attempts += 1
        if self._attempts >= MAX_ATTEMPTS and now >= self._gives_up:
            return None
        if isinstance(failure, Overloaded) and failure.retry_after_ms:
            return failure.retry_after_ms / 1000
        if not isinstance(failure, Unavailable):
            return None
        longest: float = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(self._attempts - 1, 10))
        return longest * random.uniform(0.5, 1.0)


def closed_client() -> AdvsentryError:
    """What a closed client says."""
    return AdvsentryError("the client is closed: make another one")


def cancelled_by_server() -> AdvsentryError:
    """What it means when a call is cancelled and not by its caller."""
    return error_of(grpc.StatusCode.CANCELLED, "", {})


def error_from(target: str, error: grpc.RpcError, *, has_worked: bool = False) -> AdvsentryError:
    """What a call's end means.

    Args:
        error: of a call of either kind of channel.
        has_worked: whether the channel has had an answer, so that its security is right.
    """
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return AdvsentryError(f"{target}: {error}")
    trailers = {str(key): str(value) for key, value in error.trailing_metadata() or ()}
    made = error_of(error.code(), error.details() or "", trailers)
    if isinstance(made, Unavailable):
        for words, meaning in _NO_CONNECTION.items():
            if re.search(words, str(made)):
                return Unavailable(
                    (_BROKEN if has_worked and words == _ENDS_AT_ONCE else meaning).format(target=target)
                )
    if made.args == ("UNIMPLEMENTED: Method not found!",):
        return AdvsentryError(
            f"{target} does not serve this call: is it the server's gRPC port, and its version yours?"
        )
    return made
