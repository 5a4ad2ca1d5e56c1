"""service/rpc/closing.py: calls that come in the last moment are held until gRPC takes none, then refused."""

import asyncio

import pytest

from service.errors import Unavailable
from service.rpc.closing import Closing


def test_calls_pass_by_while_the_server_serves() -> None:
    asyncio.run(Closing().pass_by())


def test_calls_of_the_last_moment_are_refused_once_grpc_has_stopped() -> None:
    seen: list[str] = []

    async def scene() -> None:
        closing, under_way = Closing(), asyncio.Event()

        async def late() -> None:
            try:
                await closing.pass_by()
            except Unavailable as error:
                seen.append(str(error))
                under_way.set()

        async def stop() -> None:
            assert not seen  # held, not refused: nobody sends another
            seen.append("stopped")
            await under_way.wait()  # gRPC waits for the calls under way
            seen.append("ended")

        stopping = asyncio.create_task(closing.stop(stop))
        await asyncio.sleep(0)
        call = asyncio.create_task(late())
        await asyncio.wait_for(stopping, 30)
        await call
        with pytest.raises(Unavailable):
            await closing.pass_by()

    asyncio.run(scene())
    assert seen == ["stopped", "the server is shutting down; send to another", "ended"]
