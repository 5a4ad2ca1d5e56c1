"""The one message of a call that is no stream: read under a time limit, and counted while it is held.

gRPC gives out the memory of a message while it arrives, before anybody knows what is in it. So the messages that arrive
are bounded in time and number: one that is slow makes way for others when there are many, and none ever waits for a
slow one. The bytes of those that have arrived are bounded, too.
"""

import asyncio
from typing import Any, TypeAlias

import grpc

from service.errors import DeadlinePassed, InvalidRequest, Overloaded
from service.rpc.reading import read_message

__all__ = ["Intake"]

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

MOST_ARRIVING = 256
"""Messages that arrive at once; one more ends the slowest of them."""
SLOW_S = 1.0
"""Seconds after which a message counts as slow. None that is younger is ended, so a burst of many is let in."""
ARRIVE_S = 10.0
"""Seconds in which a message must have come."""
_RETRY_MS = 100


class Intake:
    """What arrives and what is held, of all calls together."""

    def __init__(self, held_bytes: int) -> None:
        """Takes the bytes of all messages that are held at once, at least 1."""
        self._most_bytes = held_bytes
        self.held_bytes = 0
        """Of messages whose calls run."""
        self._arriving: dict[asyncio.Timeout, float] = {}  # since when, the slowest first

    async def read(self, context: Context) -> Any:
        """The message of a call; its bytes are held until `release`.

        Raises:
            InvalidRequest: the call has none.
            DeadlinePassed: it did not come in time.
            Overloaded: too many bytes are held.
        """
        try:
            async with asyncio.timeout(ARRIVE_S) as limit:
                self._make_way()
                self._arriving[limit] = asyncio.get_running_loop().time()
                try:
                    message = await read_message(context)
                finally:
                    self._arriving.pop(limit, None)
        except TimeoutError:
            raise DeadlinePassed("the message of this call did not come in time; send it faster") from None
        if message is grpc.aio.EOF:
            raise InvalidRequest("expected one message, got none")
        if self.held_bytes and self.held_bytes + _size(message) > self._most_bytes:
            raise Overloaded("the requests under way hold too many bytes", retry_after_ms=_RETRY_MS)
        self.held_bytes += _size(message)
        return message

    def _make_way(self) -> None:
        if len(self._arriving) < MOST_ARRIVING:
            return
        now = asyncio.get_running_loop().time()
        slowest, since = next(iter(self._arriving.items()))
        if now - since > SLOW_S:
            del self._arriving[slowest]
            if not slowest.expired():  # its task has not run yet since then
                slowest.reschedule(now)

    def release(self, message: Any) -> None:
        """Lets a message go that was read."""
        self.held_bytes -= _size(message)


def _size(message: Any) -> int:
    return len(message) if isinstance(message, bytes) else 0  # others are of services whose messages are small
