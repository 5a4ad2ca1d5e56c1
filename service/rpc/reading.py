"""Reads the messages of calls so that the end of a call cuts off no read of gRPC's.

A read that is cancelled keeps its memory for good (https://github.com/grpc/grpc/issues/43360): 80 bytes for each call
whose caller leaves. One that is left alone ends by itself with its call.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import grpc

__all__ = ["StreamReader", "read_message"]

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


async def read_message(context: Context) -> Any:
    """The next message, or `grpc.aio.EOF`; who is cancelled meanwhile leaves at once, the read does not."""
    loop = asyncio.get_running_loop()
    reading = loop.create_task(context.read())
    done: asyncio.Future[None] = loop.create_future()
    reading.add_done_callback(partial(_tell, done))
    await done  # asyncio.shield would complain of what a read raises that nobody waits for
    return reading.result()


def _tell(done: "asyncio.Future[None]", reading: "asyncio.Task[Any]") -> None:
    if not done.done():
        done.set_result(None)
    else:
        _look(reading)


def _look(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not complain


class StreamReader:
    """The task that reads a stream, beside the one that answers it.

    It is not cancelled while it waits for a message, so that messages need no task each as `read_message` makes, which
    is felt where the graph is light.
    """

    def __init__(
        self, requests: AsyncIterator[bytes], take: Callable[[bytes], Awaitable[None]], on_end: Callable[[], None]
    ) -> None:
        """Starts it.

        Args:
            requests: read by gRPC's own reads.
            take: is waited for before the next message is read; what it raises ends the reading.
            on_end: called when there is nothing more to read.
        """
        self._has_left = False
        self._waits = False
        self._task = asyncio.create_task(self._read(requests, take))
        self._task.add_done_callback(lambda _: on_end())

    async def _read(self, requests: AsyncIterator[bytes], take: Callable[[bytes], Awaitable[None]]) -> None:
        self._waits = True
        async for data in requests:
            self._waits = False
            if self._has_left:
                return
            await take(data)
            self._waits = True
        await asyncio.sleep(0)  # of a call that was cut off gRPC says first that it has no more messages

    @property
    def is_done(self) -> bool:
        """Whether all was read, or something was wrong with it."""
        return self._task.done()

    @property
    def error(self) -> BaseException | None:
        """What ended the reading before all was read; only when it is done."""
        return asyncio.CancelledError() if self._task.cancelled() else self._task.exception()

    def check(self) -> None:
        """Raises what ended the reading before all was read; only when it is done."""
        self._task.result()

    async def leave(self) -> None:
        """Takes nothing more; a message that is waited for still comes, or the end of the call."""
        self._has_left = True
        if self._waits:
            self._task.add_done_callback(_look)
            return
        self._task.cancel()
        await asyncio.wait({self._task})  # not the task itself, whose cancellation could not be told from our own
        _look(self._task)
