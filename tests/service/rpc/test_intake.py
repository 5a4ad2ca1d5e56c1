"""service/rpc/intake.py: what arrives makes way for what comes."""

import asyncio
from typing import Any

import pytest

from service.errors import DeadlinePassed
from service.rpc import intake
from service.rpc.intake import Intake


class Arriving:
    """A call whose message comes at once, or never."""

    def __init__(self, message: bytes | None) -> None:
        self._message = message

    async def read(self) -> bytes:
        if self._message is None:
            await asyncio.Event().wait()
        assert self._message is not None
        return self._message


def test_the_slowest_makes_way_also_in_the_moment_of_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_ARRIVING", 1)

    async def run() -> None:
        made, never, now = Intake(2**20), Arriving(None), Arriving(b"x")
        contexts: list[Any] = [never, now]
        slow = asyncio.create_task(made.read(contexts[0]))
        await asyncio.sleep(0)
        limit = next(iter(made._arriving))
        made._arriving[limit] -= 2 * intake.SLOW_S
        limit.reschedule(asyncio.get_running_loop().time() - 1)  # it ends, then the other comes, then the first hears
        assert await asyncio.create_task(made.read(contexts[1])) == b"x"
        with pytest.raises(DeadlinePassed):
            await slow
        assert not made._arriving

    asyncio.run(run())
