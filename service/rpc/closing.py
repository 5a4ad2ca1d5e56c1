"""The last moment of a server: calls that still come are held until gRPC has stopped taking them, then refused.

When it stops, gRPC cancels what has reached it and was not handed over, and a caller cannot tell such a call from one
that was begun. While calls are answered there always are some; those whose calls are held send no others.
"""

import asyncio
from collections.abc import Awaitable, Callable

from service.errors import Unavailable

__all__ = ["HOLD_S", "Closing"]

HOLD_S = 0.1
"""For which calls are held before gRPC stops: callers have all answers by then, and have sent what is next."""
STOPS_S = 0.02
"""By which gRPC takes no calls any more after it was told to stop."""


class Closing:
    """What becomes of calls that come when the server is about to stop."""

    def __init__(self) -> None:
        """Of a server that is not."""
        self._stopped: asyncio.Event | None = None

    async def pass_by(self) -> None:
        """Lets a call by that came before the last moment.

        Raises:
            Unavailable: it came later; once gRPC has stopped.
        """
        if self._stopped is not None:
            await self._stopped.wait()
            raise Unavailable("the server is shutting down; send to another")

    async def stop(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Holds new calls for a moment, stops gRPC, and refuses them.

        Args:
            stop: gRPC's own, which returns when the calls under way have ended.
        """
        self._stopped = asyncio.Event()
        await asyncio.sleep(HOLD_S)
        asyncio.get_running_loop().call_later(STOPS_S, self._stopped.set)
        await stop()
