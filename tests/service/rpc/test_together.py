"""A call of several images waits once, and gets each image's outcome in order."""

import asyncio

from service.detection.types import Scored
from service.errors import AdvsentryError, Overloaded
from service.rpc.together import Together


def row(number: int, any_measured: object = None) -> Scored:
    return Scored(any_measured, number, 0.0, 0.0, 1)  # type: ignore[arg-type]  # nobody looks into it here


def test_outcomes_come_in_the_order_of_the_images_whatever_the_order_of_their_ends() -> None:
    async def scene() -> list[Scored | AdvsentryError]:
        together = Together(3)
        waiting = asyncio.create_task(together.outcomes())
        together.places[2].scored(row(2))
        together.places[0].scored(row(0))
        await asyncio.sleep(0)
        assert not waiting.done()
        together.places[1].failed(Overloaded("full", retry_after_ms=20))
        return await asyncio.wait_for(waiting, 10)

    first, second, third = asyncio.run(scene())
    assert isinstance(second, Overloaded)
    assert [outcome.row for outcome in (first, third) if isinstance(outcome, Scored)] == [0, 2]


def test_who_has_left_wants_no_rows_any_more() -> None:
    async def scene() -> None:
        together = Together(2)
        together.places[0].scored(row(0))
        assert [place.is_settled for place in together.places] == [True, False]
        together.leave()
        assert [place.is_settled for place in together.places] == [True, True]

    asyncio.run(scene())


def test_no_image_is_no_wait() -> None:
    async def scene() -> None:
        assert await asyncio.wait_for(Together(0).outcomes(), 10) == []

    asyncio.run(scene())
