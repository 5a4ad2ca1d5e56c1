"""service/rpc/reading.py: the end of a call cuts off no read."""

import asyncio
from typing import Any

import pytest

from service.rpc.reading import read_message


class Arriving:
    """A call whose message comes when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.comes = asyncio.Event()
        self.has_ended = asyncio.Event()

    async def read(self) -> bytes:
        await self.comes.wait()
        self.has_ended.set()
        if self._error is not None:
            raise self._error
        return b"x"


def test_a_message_or_an_error_comes_through() -> None:
    async def scene(error: Exception | None) -> bytes:
        context: Any = Arriving(error)
        context.comes.set()
        message: bytes = await read_message(context)
        return message

    assert asyncio.run(scene(None)) == b"x"
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(scene(ValueError("broken")))


@pytest.mark.parametrize("error", [None, ValueError("the call has ended")])
def test_who_is_cancelled_leaves_the_read_to_its_end(error: Exception | None) -> None:
    complaints: list[object] = []

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        context: Any = Arriving(error)
        reader = asyncio.create_task(read_message(context))
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert not context.has_ended.is_set()
        context.comes.set()
        await asyncio.wait_for(context.has_ended.wait(), 30)

    asyncio.run(scene())
    assert not complaints
