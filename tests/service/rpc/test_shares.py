"""What a caller may have under way while others send, and the line of those who wait."""

import asyncio
import random

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
        modest = Share(everyone, "modest")
        await asyncio.wait_for(modest.turn(), 10)
        modest.take(1)
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


def test_a_call_gets_its_turn_beside_a_stream_of_its_caller() -> None:
    async def go() -> None:
        everyone, is_over = contended(4), asyncio.Event()
        other, stream, late = (Share(everyone, key) for key in ("other", "a", "a"))
        other.take(1)

        under_way = 0

        async def read() -> None:
            nonlocal under_way
            call = Call(share=stream)
            while not is_over.is_set():
                while under_way == 3:  # as a client does that paces itself: more than its part of calls, less than all
                    await turns(1)
                await call.room()
                call.takes(items=1, size_bytes=1)
                under_way += 1

        async def write() -> None:
            nonlocal under_way
            while not is_over.is_set():
                await turns(2)
                if under_way:
                    under_way -= 1
                    stream.give(1)

        working = [asyncio.create_task(read()), asyncio.create_task(write())]
        await turns(20)
        await late.turn()  # else it would be refused
        late.take(1)
        await turns(20)
        late.close()
        is_over.set()
        await asyncio.wait_for(asyncio.gather(*working), 10)

    asyncio.run(go())


def test_nobody_goes_past_those_of_the_same_caller_who_wait() -> None:
    async def go() -> None:
        everyone, begun = contended(1), list[str]()
        first = Share(everyone, "a")
        await first.turn()

        async def call(name: str) -> None:
            share = Share(everyone, "a")
            await share.turn()
            begun.append(name)
            share.close()

        async def stream() -> None:
            share = Share(everyone, "a")
            await Call(share=share).room(3)
            begun.append("stream")
            share.close()

        waiting = [asyncio.create_task(call("early")), asyncio.create_task(stream())]
        await turns()
        late = asyncio.create_task(call("late"))
        first.close()  # now it fits all of them, and the last asks first
        await asyncio.wait_for(asyncio.gather(late, *waiting), 10)
        assert begun == ["early", "stream", "late"]
        assert not everyone._lines

    asyncio.run(go())


def test_who_leaves_at_his_turn_leaves_it_to_the_next() -> None:
    async def go() -> None:
        everyone = contended(1)
        first = Share(everyone, "a")
        await first.turn()
        leaver, heir = (asyncio.create_task(Share(everyone, "a").turn()) for _ in range(2))
        await turns()
        first.close()
        leaver.cancel()
        await asyncio.wait_for(heir, 10)
        assert leaver.cancelled()

    asyncio.run(go())


def test_a_stream_that_waits_for_its_rate_leaves_its_turn_to_the_next() -> None:
    async def go() -> None:
        everyone, bucket = contended(1), Bucket(0.001, 1.0)
        first = Share(everyone, "a")
        await first.turn()
        stream = asyncio.create_task(Call(share=Share(everyone, "a"), bucket=bucket).room())
        await turns()
        call = asyncio.create_task(Share(everyone, "a").turn())
        await turns()
        bucket.take(1)
        first.close()
        await asyncio.wait_for(call, 10)
        assert not stream.done()
        stream.cancel()

    asyncio.run(go())


def test_when_others_send_no_more_a_newcomer_has_those_before_him_go_on() -> None:
    async def go() -> None:
        clock = Clock()
        everyone = FairShare(1, clock)
        everyone.fits("b", 1)
        await Share(everyone, "a").turn()  # whose message does not come
        early = asyncio.create_task(Share(everyone, "a").turn())
        await turns()
        assert not early.done()
        clock.now += CONTENDED_S
        await asyncio.wait_for(asyncio.gather(Share(everyone, "a").turn(), early), 10)

    asyncio.run(go())


def test_callers_whose_messages_do_not_come_make_no_part_smaller() -> None:
    async def go() -> None:
        everyone = contended(4)
        slow = [Share(everyone, f"slow {i}") for i in range(4)]
        for share in slow:
            await share.turn()
        mine = [Share(everyone, "a") for _ in range(4)]
        for share in mine:
            assert everyone.may_begin("a")
            await share.turn()
        assert not everyone.may_begin("a")
        mine[0].close()
        slow[0].take(1)  # which came after all
        assert not everyone.may_begin("a")  # 3 are under way, and half of 4 is 2
        for share in (*slow, *mine):
            share.close()
        assert not everyone._held
        assert not everyone._came

    asyncio.run(go())


async def one_message(call: Call, chance: random.Random) -> None:
    await call.turn()
    await turns(chance.randint(0, 4))  # until it has come
    if chance.random() < 0.9:
        call.takes(items=chance.randint(1, 5), size_bytes=1)
    await turns(chance.randint(0, 4))


async def a_stream(call: Call, chance: random.Random) -> None:
    async def answer(items: int) -> None:
        await turns(chance.randint(0, 4))
        call.gave(items)

    if chance.random() < 0.2:
        call.bucket = Bucket(1e4, 8.0)
    async with asyncio.TaskGroup() as answers:
        for _ in range(chance.randint(1, 6)):
            items = chance.randint(1, 4)
            await call.room(items)
            call.takes(items=items, size_bytes=1)
            answers.create_task(answer(items))


@pytest.mark.parametrize("seed", range(40))
def test_whoever_comes_and_leaves_everybody_has_his_turn_and_nothing_stays(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    everyone = contended(chance.randint(1, 6))

    async def one() -> None:
        call = Call(share=Share(everyone, chance.choice("abc")))
        try:
            await chance.choice((one_message, a_stream))(call, chance)
        finally:
            call.close()

    async def go() -> None:
        begun = list[asyncio.Task[None]]()
        for _ in range(60):
            begun.append(asyncio.create_task(one()))
            await turns(chance.randint(0, 3))
            if chance.random() < 0.3:
                chance.choice(begun).cancel()
        ended, waiting = await asyncio.wait(begun, timeout=10)
        assert not waiting
        assert not any(task.exception() for task in ended if not task.cancelled())
        assert not everyone._lines
        assert not everyone._held
        assert not everyone._came

    monkeypatch.setattr(shares, "TURN_S", 60.0)  # so that a lost turn is a wait without end
    asyncio.run(go())
