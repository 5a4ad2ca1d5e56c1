"""The queue: what one caller does never touches another, and nothing waits for ever."""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.batching import QUANTUM_S, QUIET_TURNS, Batcher, QueueLimits
from service.detection.types import Measurements, Outputs, Scored
from service.errors import AdvsentryError, DeadlinePassed, Overloaded, Unavailable
from service.metrics import Metrics

POISON = 255


def image(value: int) -> np.ndarray:
    return np.full((2, 2, 1), value, np.uint8)


class FakeGraph:
    """Gives each image's first pixel as its p-value; raises when a batch holds poison; waits while `go` is clear."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.batches: list[list[int]] = []
        self.slow_s: dict[int, float] = {}
        """Seconds that a run takes, by its images."""

    def __call__(self, images: np.ndarray) -> Measurements:
        assert self.go.wait(60)
        time.sleep(self.slow_s.get(len(images), 0.0))
        values = images[:, 0, 0, 0].astype(float)
        self.batches.append([int(value) for value in values])
        if POISON in values:
            raise RuntimeError("poison")
        empty = np.zeros((len(values), 1), np.float32)
        outputs = Outputs(logits=empty, embedding=empty, scores=empty)
        return Measurements(outputs=outputs, probabilities=values, p_values=values, fused_p_value=values)


class Scene:
    def __init__(self, batcher: Batcher, graph: FakeGraph, registry: CollectorRegistry, health: list[bool]) -> None:
        self.batcher, self.graph, self.registry, self.health = batcher, graph, registry, health

    def submit(
        self, value: int, left_s: float = 10.0, *, is_bulk: bool = False, key: str = ""
    ) -> "asyncio.Future[Scored]":
        return self.batcher.submit(image(value), time.monotonic() + left_s, is_bulk=is_bulk, key=key)

    def dropped(self, reason: str) -> float:
        return self.registry.get_sample_value("advsentry_dropped_total", {"reason": reason}) or 0.0


def value(scored: Scored) -> int:
    return int(scored.measured.fused_p_value[scored.row])


@asynccontextmanager
async def scene(**limits: float) -> AsyncIterator[Scene]:
    graph, registry, health = FakeGraph(), CollectorRegistry(), list[bool]()
    with ThreadPoolExecutor(1) as executor:
        made = Batcher(
            graph,
            executor,
            limits=QueueLimits(**limits),  # type: ignore[arg-type]
            metrics=Metrics(registry),
            on_health=health.append,
        )
        made.start()
        try:
            yield Scene(made, graph, registry, health)
        finally:
            graph.go.set()
            await made.close()


def in_loop(test: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


@in_loop
async def test_each_image_gets_its_own_row() -> None:
    async with scene(max_batch=8) as s:
        assert [value(row) for row in await asyncio.gather(*(s.submit(i) for i in range(100)))] == list(range(100))
        assert all(len(batch) <= 8 for batch in s.graph.batches)


@in_loop
async def test_what_waits_runs_together() -> None:
    async with scene(max_batch=64) as s:
        s.graph.go.clear()
        first = s.submit(0)
        await asyncio.sleep(0.02)
        rest = [s.submit(i) for i in range(1, 11)]
        s.graph.go.set()
        await asyncio.gather(first, *rest)
        assert s.graph.batches == [[0], list(range(1, 11))]
        assert rest[0].result().batch_size == 10


@in_loop
async def test_any_subset_may_leave_and_the_others_never_notice() -> None:
    async with scene(max_batch=4) as s:
        for leaving in itertools.chain.from_iterable(itertools.combinations(range(4), n) for n in range(5)):
            s.graph.go.clear()
            blocker = s.submit(99)
            await asyncio.sleep(0.01)  # it runs now, and the others wait
            futures = [s.submit(i) for i in range(4)]
            for i in leaving:
                futures[i].cancel()
            s.graph.go.set()
            await blocker
            staying = [i for i in range(4) if i not in leaving]
            assert [value(await futures[i]) for i in staying] == staying
            if len(staying):
                assert s.graph.batches[-1] == staying  # those who left did not run


@in_loop
async def test_leaving_while_running_touches_nobody() -> None:
    async with scene(max_batch=4) as s:
        s.graph.go.clear()
        futures = [s.submit(i) for i in range(4)]
        await asyncio.sleep(0.02)
        futures[1].cancel()
        s.graph.go.set()
        assert [value(await futures[i]) for i in (0, 2, 3)] == [0, 2, 3]


@in_loop
async def test_random_leaving_and_poison_leave_every_other_answer_right() -> None:
    generator = np.random.default_rng(0)
    async with scene(max_batch=8, items=10_000) as s:
        for _ in range(200):
            values = [POISON if generator.random() < 0.05 else i for i in range(20)]
            futures = [s.submit(v) for v in values]
            if generator.random() < 0.5:
                await asyncio.sleep(0)
            leaving = {i for i in range(20) if generator.random() < 0.2}
            for i in leaving:
                futures[i].cancel()
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
            for i, outcome in enumerate(outcomes):
                if i in leaving:
                    assert isinstance(outcome, asyncio.CancelledError)
                elif values[i] == POISON:
                    assert type(outcome) is AdvsentryError
                else:
                    assert isinstance(outcome, Scored)
                    assert value(outcome) == i


@in_loop
async def test_only_the_poison_fails() -> None:
    async with scene(max_batch=8) as s:
        outcomes = await asyncio.gather(*(s.submit(v) for v in (1, POISON, 3)), return_exceptions=True)
        assert isinstance(outcomes[1], AdvsentryError)
        assert "poison" not in str(outcomes[1])
        assert [value(outcomes[i]) for i in (0, 2)] == [1, 3]  # type: ignore[arg-type]
        assert s.health == []


@pytest.mark.parametrize("limits", [{"items": 3}, {"size_bytes": 12}], ids=["items", "bytes"])
def test_a_full_queue_refuses_and_says_when_to_come_back(limits: dict[str, float]) -> None:
    @in_loop
    async def test() -> None:
        async with scene(max_batch=1, **limits) as s:
            s.graph.go.clear()
            running = s.submit(0)
            await asyncio.sleep(0.02)
            waiting = [s.submit(i) for i in (1, 2, 3)]
            with pytest.raises(Overloaded, match="3 images wait") as caught:
                s.submit(4)
            assert caught.value.retry_after_ms >= 20
            assert s.dropped("overload") == 1
            patient = asyncio.create_task(s.batcher.room())
            await asyncio.sleep(0.02)
            assert not patient.done()
            s.graph.go.set()
            await patient
            await asyncio.gather(running, *waiting)

    test()


@in_loop
async def test_what_is_late_never_runs() -> None:
    async with scene(max_batch=4) as s:
        s.graph.go.clear()
        first = s.submit(0)
        await asyncio.sleep(0.02)
        late, patient = s.submit(1, left_s=0.01), s.submit(2)
        await asyncio.sleep(0.05)
        s.graph.go.set()
        with pytest.raises(DeadlinePassed):
            await late
        assert value(await patient) == 2
        await first
        assert s.graph.batches == [[0], [2]]
        assert s.dropped("deadline") == 1


@in_loop
async def test_a_lost_worker_fails_everybody_at_once_and_turns_health() -> None:
    async with scene(max_batch=1) as s:
        s.graph.go.clear()
        futures = [s.submit(i) for i in range(3)]
        await asyncio.sleep(0.02)
        assert s.batcher._worker is not None
        s.batcher._worker.cancel()
        for future in futures:
            with pytest.raises(Unavailable, match="lost its worker"):
                await future
        with pytest.raises(Unavailable):
            s.submit(4)
        assert s.health == [False]
        assert s.batcher.lost.is_set()
        assert s.dropped("shutdown") == 2  # the third ran


@in_loop
async def test_a_stuck_batch_fails_everybody_and_health_comes_back_with_it() -> None:
    async with scene(max_batch=1, stuck_s=0.05) as s:
        s.graph.go.clear()
        futures = [s.submit(i) for i in range(3)]
        for future in futures:
            with pytest.raises(Unavailable, match="stuck"):
                await future
        assert s.health == [False]
        s.graph.go.set()
        while s.health != [False, True]:
            await asyncio.sleep(0.01)
        assert value(await s.submit(7)) == 7


@in_loop
async def test_health_comes_back_too_when_the_stuck_run_ends_in_an_exception() -> None:
    async with scene(max_batch=1, stuck_s=0.05) as s:
        s.graph.go.clear()
        with pytest.raises(Unavailable, match="stuck"):
            await s.submit(POISON)
        s.graph.go.set()
        while s.health != [False, True]:
            await asyncio.sleep(0.01)
        assert value(await s.submit(7)) == 7


@in_loop
async def test_closing_finishes_what_waits_and_refuses_what_comes() -> None:
    async with scene(max_batch=2) as s:
        s.graph.go.clear()
        futures = [s.submit(i) for i in range(7)]
        closing = asyncio.create_task(s.batcher.close())
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="shutting down"):
            s.submit(9)
        s.graph.go.set()
        await closing
        assert [value(future.result()) for future in futures] == list(range(7))
        assert s.health == []
        assert s.dropped("shutdown") == 1


@in_loop
async def test_interactive_images_go_before_bulk_that_came_first() -> None:
    async with scene(max_batch=2) as s:
        s.graph.go.clear()
        first = s.submit(0)
        await asyncio.sleep(0.02)
        bulk = [s.submit(i, is_bulk=True) for i in (1, 2, 3)]
        urgent = [s.submit(i) for i in (4, 5, 6)]
        s.graph.go.set()
        await asyncio.gather(first, *bulk, *urgent)
        assert s.graph.batches == [[0], [4, 5], [6, 1], [2, 3]]


@in_loop
async def test_what_cannot_come_in_time_never_runs_and_is_refused_at_once() -> None:
    async with scene(max_batch=1) as s:
        s.batcher.learn({1: 0.0005})
        s.graph.go.clear()
        running = s.submit(0)
        await asyncio.sleep(0.02)
        waiting = [s.submit(i) for i in range(1, 200)]
        since = time.monotonic()
        with pytest.raises(Overloaded, match="are left, and what waits takes about"):
            s.submit(250, left_s=0.05)
        with pytest.raises(Overloaded):
            s.batcher.admit(7, time.monotonic() + 0.05)
        assert time.monotonic() - since < 1
        assert s.dropped("overload") == 8
        s.graph.go.set()
        await asyncio.gather(running, *waiting)
        assert s.graph.batches == [[i] for i in range(200)]


@in_loop
async def test_every_image_either_runs_or_is_counted_as_dropped() -> None:
    generator = np.random.default_rng(1)
    async with scene(max_batch=4, items=12) as s:
        for _ in range(60):
            s.graph.go.clear()
            futures: list[asyncio.Future[Scored]] = []
            for i in range(16):
                with contextlib.suppress(Overloaded, DeadlinePassed):
                    futures.append(s.submit(i, left_s=generator.choice([0.002, 10.0]), is_bulk=bool(i % 2)))
                if futures and generator.random() < 0.2:
                    futures[-1].cancel()
                await asyncio.sleep(0)
            await asyncio.sleep(0.004)
            s.graph.go.set()
            await asyncio.gather(*futures, return_exceptions=True)
        await s.batcher.close()
        ran = sum(map(len, s.graph.batches))
        dropped = {reason: s.dropped(reason) for reason in ("cancelled", "deadline", "overload", "shutdown")}
        assert ran + sum(dropped.values()) == 60 * 16
        assert min(dropped["cancelled"], dropped["deadline"]) > 0


@in_loop
async def test_the_rest_of_a_failed_batch_keeps_its_deadlines() -> None:
    async with scene(max_batch=8) as s:
        s.graph.go.clear()
        first = s.submit(0)
        await asyncio.sleep(0.02)
        late, poison, patient = s.submit(1, left_s=0.3), s.submit(POISON), s.submit(2)
        s.graph.slow_s = {3: 0.5}  # the run of all three outlasts the first one's time
        s.graph.go.set()
        with pytest.raises(DeadlinePassed, match="one by one"):
            await late
        assert type((await asyncio.gather(poison, return_exceptions=True))[0]) is AdvsentryError
        assert value(await patient) == 2
        await first
        assert s.graph.batches == [[0], [1, POISON, 2], [POISON], [2]]


@in_loop
async def test_a_stream_is_let_wait_by_lane() -> None:
    async with scene(max_batch=1, items=4) as s:
        s.graph.go.clear()
        futures = [s.submit(0)]
        await asyncio.sleep(0.02)
        futures += [s.submit(i, is_bulk=True) for i in (1, 2, 3)]
        assert s.batcher.is_busy(is_bulk=True)
        assert not s.batcher.is_busy()
        assert not s.batcher.is_full
        patient = asyncio.create_task(s.batcher.room(is_bulk=True))
        await asyncio.sleep(0.02)
        assert not patient.done()
        s.graph.go.set()
        await patient
        await asyncio.gather(*futures)


@in_loop
async def test_nobody_waits_for_room_in_a_queue_that_takes_nothing_any_more() -> None:
    async with scene(max_batch=1, items=2) as s:
        s.graph.go.clear()
        futures = [s.submit(0)]
        await asyncio.sleep(0.02)
        futures += [s.submit(i) for i in (1, 2)]
        assert s.batcher.is_busy()
        closing = asyncio.create_task(s.batcher.close())
        await asyncio.sleep(0.02)
        assert not s.batcher.is_busy()  # a stream that asked again and again would hold up the loop for good
        s.graph.go.set()
        await asyncio.gather(*futures, closing)


@in_loop
async def test_a_modest_caller_runs_before_the_backlog_of_a_greedy_one() -> None:
    async with scene(max_batch=1) as s:
        s.graph.go.clear()
        running = s.submit(0, key="greedy")
        await asyncio.sleep(0.02)
        backlog = [s.submit(i, 60.0, key="greedy") for i in range(1, 9)]
        modest = [s.submit(i, 60.0, key="modest") for i in (101, 102)]
        backlog[1].cancel()
        s.graph.go.set()
        await asyncio.gather(running, *modest, *backlog[:1], *backlog[2:])
        assert s.graph.batches == [[0], [1], [101], [102], [3], [4], [5], [6], [7], [8]]
        assert s.dropped("cancelled") == 1


@in_loop
async def test_while_several_send_a_run_waits_for_calls_that_are_about_to_come() -> None:
    async with scene(max_batch=16) as s:
        arrivals = s.batcher._metrics.arrivals

        async def hand_over() -> "asyncio.Future[Scored]":
            for _ in range(2):  # as gRPC does: a call every few turns of the loop, with nothing in the queue meanwhile
                for _ in range(QUIET_TURNS - 1):
                    await asyncio.sleep(0)
                arrivals.count += 1
            return s.submit(101, key="modest")

        await s.submit(0, key="modest")
        first = s.submit(1, key="greedy")
        await asyncio.gather(first, await hand_over())
        assert s.graph.batches == [[0], [1, 101]]


@in_loop
async def test_a_run_does_not_wait_for_calls_without_end() -> None:
    async with scene(max_batch=16) as s:
        await s.submit(0, key="modest")
        answer = s.submit(1, key="greedy")
        while not answer.done():
            s.batcher._metrics.arrivals.count += 1
            await asyncio.sleep(0)


@in_loop
async def test_while_several_send_a_run_is_short_and_holds_all_of_them() -> None:
    async with scene(max_batch=16) as s:
        s.batcher.learn({1: QUANTUM_S / 2, 16: 8 * QUANTUM_S})  # the first run makes it 5 / 8 of a quantum
        s.graph.go.clear()
        running = s.submit(0, key="greedy")
        await asyncio.sleep(0.02)
        backlog = [s.submit(i, 60.0, key="greedy") for i in range(1, 7)]
        others = [s.submit(100 + i, 60.0, key=f"caller {i}") for i in range(2)]
        s.graph.go.set()
        await asyncio.gather(running, *backlog, *others)
        assert s.graph.batches[1] == [1, 100, 101, 2, 3, 4]  # 2 for each of 3 callers
        assert [len(batch) for batch in s.graph.batches[2:]] == [2]
