"""service/rpc/reading.py: the end of a call cuts off no read."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.errors import InvalidRequest
from service.rpc.reading import StreamReader, read_message


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


class Sending:
    """A stream whose messages come when they are put in."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.was_cut_off = False
        self.taken: list[bytes] = []
        self.goes_on = asyncio.Event()
        self.has_ended = asyncio.Event()

    async def requests(self) -> AsyncIterator[bytes]:
        while True:
            try:
                message = await self.messages.get()
            except asyncio.CancelledError:
                self.was_cut_off = True
                raise
            if isinstance(message, Exception):
                raise message
            if message is None:
                return
            yield message

    async def take(self, message: bytes) -> None:
        self.taken.append(message)
        await self.goes_on.wait()

    def reader(self) -> StreamReader:
        return StreamReader(self.requests(), self.take, self.has_ended.set)


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_reader_waits_until_a_message_was_taken_and_ends_with_the_last() -> None:
    async def scene() -> None:
        stream = Sending()
        reader = stream.reader()
        for message in (b"1", b"2", None):
            stream.messages.put_nowait(message)
        await _turns()
        assert stream.taken == [b"1"]
        assert not reader.is_done
        stream.goes_on.set()
        await asyncio.wait_for(stream.has_ended.wait(), 30)
        assert stream.taken == [b"1", b"2"]
        assert reader.is_done
        assert reader.error is None
        reader.check()
        await reader.leave()

    asyncio.run(scene())


def test_what_was_wrong_with_a_message_is_told() -> None:
    async def scene() -> None:
        stream = Sending()
        reader = stream.reader()
        stream.messages.put_nowait(InvalidRequest("broken"))
        await asyncio.wait_for(stream.has_ended.wait(), 30)
        assert isinstance(reader.error, InvalidRequest)
        with pytest.raises(InvalidRequest, match="broken"):
            reader.check()

    asyncio.run(scene())


@pytest.mark.parametrize("last", [None, b"late", ValueError("the call has ended")])
def test_leaving_does_not_cut_off_what_is_read_and_takes_nothing_more(last: bytes | Exception | None) -> None:
    complaints: list[object] = []

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        stream = Sending()
        reader = stream.reader()
        await _turns()
        await asyncio.wait_for(reader.leave(), 30)
        assert not reader.is_done
        stream.messages.put_nowait(last)
        await asyncio.wait_for(stream.has_ended.wait(), 30)
        assert not stream.was_cut_off
        assert not stream.taken

    asyncio.run(scene())
    assert not complaints


def test_leaving_ends_what_waits_for_room() -> None:
    async def scene() -> None:
        stream = Sending()
        reader = stream.reader()
        stream.messages.put_nowait(b"1")
        await _turns()
        await asyncio.wait_for(reader.leave(), 30)
        assert isinstance(reader.error, asyncio.CancelledError)
        assert not stream.was_cut_off

    asyncio.run(scene())
