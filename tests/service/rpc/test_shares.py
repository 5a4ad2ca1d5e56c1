"""What a caller may have under way while others send, and the line of those who wait."""

import asyncio

import pytest

from service.errors import Overloaded
from service.rpc import shares
from service.rpc.call import Call
from service.rpc.contention import CONTENDED_S, Contention
from service.rpc.rates import Bucket
from service.rpc.shares import FairShare, Share


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def contended(most: int) -> FairShare:
    everyone = FairShare(most)
    everyone.fits("a", 1)
    everyone.fits("b", 1)
    return everyone


async def turns(loop_turns: int = 10) -> None:
    for _ in range(loop_turns):
        await asyncio.sleep(0)


def test_two_callers_within_seconds_are_a_contention_and_a_canary_is_none() -> None:
    contention = Contention()
    contention.note("a", 100.0)
    contention.note("", 101.0)
    contention.note("a", 102.0)
    assert contention.until < 102
    contention.note("b", 103.0)
    assert contention.until == 103 + CONTENDED_S
    contention = Contention()
    contention.note("a", 100.0)
    contention.note("b", 100.0 + CONTENDED_S)
    assert contention.until < 100


def test_while_others_send_nobody_has_more_than_the_share() -> None:
    clock = Clock()
    everyone = FairShare(8, clock)
    greedy, modest = Share(everyone, "greedy"), Share(everyone, "modest")
    greedy.take(100)  # alone, so it may
    modest.take(1)
    with pytest.raises(Overloaded, match="while others wait"):
        greedy.take(1)
    modest.take(7)
    with pytest.raises(Overloaded):
        modest.take(1)
    greedy.close()
    Share(everyone, "greedy").take(100)  # one call at a time is always let in
    clock.now += CONTENDED_S
    Share(everyone, "greedy").take(1)  # alone again
    modest.close()
    modest.close()


def test_a_stream_waits_for_its_share_and_for_its_rate() -> None:
    async def go() -> None:
        everyone = FairShare(2)
        share, other = Share(everyone, "a"), Share(everyone, "b")
        other.take(1)
        call = Call(share=share, bucket=Bucket(1000.0, 2.0))
        for _ in range(2):
            await call.room()
            call.takes(items=1, size_bytes=1)
        waiting = asyncio.create_task(call.room())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        call.gave(1)
        await asyncio.wait_for(waiting, 10)
        call.takes(items=1, size_bytes=1)
        call.close()
        assert everyone._held == {"b": 1}
        await asyncio.wait_for(call.room(), 10)
        call.takes(items=1, size_bytes=1)

    asyncio.run(go())


def test_calls_beyond_the_share_wait_in_line_and_a_modest_caller_does_not() -> None:
    async def go() -> None:
        everyone, served = contended(4), list[int]()

        async def call(number: int) -> None:
            share = Share(everyone, "greedy")
            await share.turn()
            share.take(1)
            served.append(number)
            await ends[number].wait()
            share.close()

        ends = [asyncio.Event() for _ in range(8)]
        tasks = [asyncio.create_task(call(i)) for i in range(8)]
        await turns()
        assert served == [0, 1, 2, 3]
        await asyncio.wait_for(Share(everyone, "modest").turn(), 10)
        for end in ends[:2]:
            end.set()
        await turns()
        assert served == [0, 1, 2, 3]  # each of two callers has a part of 2
        ends[2].set()
        await turns()
        assert served == [0, 1, 2, 3, 4]
        tasks[5].cancel()  # one who leaves the line does not stop those behind him
        ends[3].set()
        await turns()
        assert served == [0, 1, 2, 3, 4, 6]
        for end in ends:
            end.set()
        await asyncio.wait(tasks)
        assert not everyone._lines
        assert everyone._held == {"modest": 1}

    asyncio.run(go())


def test_a_call_that_had_its_turn_brings_all_its_images_and_one_without_any_gives_it_up() -> None:
    async def go() -> None:
        everyone = contended(4)
        one, empty, after = (Share(everyone, "a") for _ in range(3))
        await one.turn()
        one.take(64)
        assert everyone._held == {"a": 64}
        waiting = asyncio.create_task(empty.turn())
        await turns()
        assert not waiting.done()
        one.close()
        await asyncio.wait_for(waiting, 10)
        empty.take(0)
        await after.turn()
        for share in (empty, after):
            share.close()
        assert not everyone._held

    asyncio.run(go())


def test_one_who_waits_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        everyone = contended(1)
        await Share(everyone, "a").turn()
        with pytest.raises(Overloaded, match="under way"):
            await Share(everyone, "a").turn()
        assert not everyone._lines

    monkeypatch.setattr(shares, "TURN_S", 0.01)
    asyncio.run(go())
