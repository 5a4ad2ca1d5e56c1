"""`grpc.health.v1`, Check and Watch.

Our own, since in the library's one a watcher who leaves silences the others of his service, and a slow one holds up
whoever sets a status.
"""

import asyncio
from typing import TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from service.errors import InvalidRequest, Overloaded, Unavailable

__all__ = ["HEALTH", "HISTORY", "LIVE", "READY", "Health"]

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"

HEALTH = "grpc.health.v1.Health"
LIVE = "live"
"""The loop and the worker work; never a matter of load."""
READY = "ready"
"""The bundle is loaded and warm, the canary right, and no end in sight."""
HISTORY = "history"
"""The query history sees all that it should, where there is one; never a matter of the others."""
MOST_WATCHERS = 500
"""Of all callers. A Watch takes no identity and no end, so whoever has some addresses could hold every call that the
server takes; these are a quarter of them. `Check` is not bounded by it."""


class Health:
    """Statuses by service name; set from the event loop."""

    def __init__(self, services: tuple[str, ...]) -> None:
        """Starts with every service NOT_SERVING, but for `LIVE`."""
        self._serving = {"": False, READY: False, LIVE: True, **dict.fromkeys(services, False)}
        self._changed = asyncio.Event()
        self._closed = False
        self._watchers = 0

    @property
    def is_ready(self) -> bool:
        """Whether new calls are served."""
        return self._serving[READY]

    @property
    def is_live(self) -> bool:
        """Whether the loop and the worker work."""
        return self._serving[LIVE]

    def set_ready(self, is_ready: bool) -> None:
        """Sets every service but `LIVE` and `HISTORY`."""
        self._set({name: is_ready for name in self._serving if name not in (LIVE, HISTORY)})

    def set_live(self, is_live: bool) -> None:
        """Sets `LIVE`."""
        self._set({LIVE: is_live})

    def set_history(self, is_well: bool | None) -> None:
        """Sets `HISTORY`; None where there is none."""
        if is_well != self._serving.get(HISTORY):
            if is_well is None:
                del self._serving[HISTORY]
            self._set({} if is_well is None else {HISTORY: is_well})

    def close(self) -> None:
        """Ends every Watch, which would hold up the server's stop for as long as it may."""
        self._closed = True
        self._set({})

    def _set(self, serving: dict[str, bool]) -> None:
        self._serving |= serving
        self._changed.set()
        self._changed = asyncio.Event()

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[bytes, bytes]]":
        """What a server is given, by method."""
        return {
            "Check": grpc.unary_unary_rpc_method_handler(self.check),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
        }

    async def check(self, data: bytes, context: Context) -> bytes:
        """The status now; NOT_FOUND for a service that nobody named."""
        name = _service(data)
        if name not in self._serving:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {name[:64]!r}")
        return self._status(name)

    async def watch(self, data: bytes, context: Context) -> None:
        """The status now and whenever it changes; SERVICE_UNKNOWN for a service that nobody named."""
        name = _service(data)
        if self._watchers >= MOST_WATCHERS:
            raise Overloaded("too many watch the health already; use Check", retry_after_ms=1000)
        self._watchers += 1
        try:
            await self._tell_changes(name, context)
        finally:
            self._watchers -= 1

    async def _tell_changes(self, name: str, context: Context) -> None:
        last = b""
        while True:
            changed = self._changed
            status = self._status(name)
            if status != last:
                await context.write(status)
                last = status
            if self._closed:
                raise Unavailable("the server is shutting down")
            await changed.wait()

    def _status(self, name: str) -> bytes:
        kinds = health_pb2.HealthCheckResponse.ServingStatus
        serving = self._serving.get(name)
        status = kinds.SERVICE_UNKNOWN if serving is None else kinds.SERVING if serving else kinds.NOT_SERVING
        return bytes(health_pb2.HealthCheckResponse(status=status).SerializeToString())


def _service(data: bytes) -> str:
    try:
        return str(health_pb2.HealthCheckRequest.FromString(data).service)
    except DecodeError as error:
        raise InvalidRequest("expected a grpc.health.v1.HealthCheckRequest, got other bytes") from error
