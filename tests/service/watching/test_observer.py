"""The thread that owns the history: what it takes together, and what it lets go."""

import asyncio
import threading
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.detection.engine import Engine
from service.detection.types import Measurements, Scored
from service.history.types import Observation, Query
from service.metrics import Metrics
from service.watching import observer
from service.watching.observer import TOGETHER, Group, Observer
from tests import tiny
from tests.service.watching.world import WAIT_S, Scripted


def scored(engine: Engine, count: int) -> list[Scored]:
    images = tiny.images(count)
    measured = engine.measure(images)
    return [Scored(measured, row, 0.0, 0.0, count, images[row]) for row in range(count)]


class Sizes(Scripted):
    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.has_all = threading.Event()

    def observe_all(self, queries: Sequence[Query]) -> list[Observation]:
        self.sizes.append(len(queries))
        found = super().observe_all(queries)
        if len(self.queries) == 2 * TOGETHER:
            self.has_all.set()
        return found


async def _sizes(engine: Engine, *, gathers: bool) -> list[int]:
    history = Sizes()
    made = Observer(
        history,
        Metrics(CollectorRegistry()).history,
        lambda *_: None,
        loop=asyncio.get_running_loop(),
        gathers=gathers,
    )
    history.goes_on.clear()
    for row in scored(engine, 2 * TOGETHER):
        assert made.put(Group("shop", [row], None))
    history.goes_on.set()
    assert await asyncio.to_thread(history.has_all.wait, WAIT_S)
    made.close(WAIT_S)
    assert not made.put(Group("shop", scored(engine, 1), None))
    assert (history.is_closed, made.items) == (True, 0)
    return history.sizes


def test_images_that_wait_are_observed_together(engine: Engine) -> None:
    first, *rest = asyncio.run(_sizes(engine, gathers=False))
    assert max(first, *rest) <= TOGETHER
    assert len(rest) <= 3


def test_images_are_waited_for_where_no_answer_waits(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "GATHER_S", WAIT_S)
    assert asyncio.run(_sizes(engine, gathers=True)) == [TOGETHER, TOGETHER]


def test_a_large_group_is_observed_in_pieces(engine: Engine) -> None:
    async def sizes() -> list[int]:
        history = Sizes()
        metrics = Metrics(CollectorRegistry())
        made = Observer(history, metrics.history, lambda *_: None, loop=asyncio.get_running_loop(), gathers=True)
        made.put(Group("shop", scored(engine, 2 * TOGETHER), None))
        assert await asyncio.to_thread(history.has_all.wait, WAIT_S)
        made.close(WAIT_S)
        assert metrics.registry.get_sample_value("advsentry_history_queries_total", {"outcome": "observed"}) == 128
        return history.sizes

    assert asyncio.run(sizes()) == [TOGETHER, TOGETHER]


def test_images_are_taken_up_to_where_the_history_has_no_more_room(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "GATHER_S", WAIT_S)

    class Rooms(Sizes):
        rooms: ClassVar = {TOGETHER: 10, 2 * TOGETHER + 10: 40}  # by how many were observed

        def observe_all(self, queries: Sequence[Query]) -> list[Observation]:
            found = super().observe_all(queries)
            self.room = self.rooms.get(len(self.queries), TOGETHER)
            return found

    async def observed() -> tuple[Rooms, list[tuple[str, int, int]]]:
        history = Rooms()
        told: list[tuple[str, int, int]] = []
        made = Observer(
            history,
            Metrics(CollectorRegistry()).history,
            lambda group, seen: told.append((group.client, len(group.images), len(seen))),
            loop=asyncio.get_running_loop(),
            gathers=True,
        )
        history.goes_on.clear()
        for client, count in (("a", 2 * TOGETHER), ("b", 20), ("c", 30)):
            made.put(Group(client, scored(engine, count), None))
        history.goes_on.set()
        while made.items:
            await asyncio.sleep(0.01)
        made.close(WAIT_S)
        return history, told

    history, told = asyncio.run(observed())
    assert history.sizes == [TOGETHER, TOGETHER + 10, 40]
    assert told == [("a", 64, 64), ("a", 64, 64), ("b", 10, 10), ("b", 10, 10), ("c", 30, 30)]
    expected = [row.image for count in (2 * TOGETHER, 20, 30) for row in scored(engine, count)]
    assert all(np.array_equal(query.image, image) for query, image in zip(history.queries, expected, strict=True))


def test_a_group_holds_copies_and_its_rows_let_their_images_go(engine: Engine) -> None:
    message = np.zeros((1000, tiny.SIDE, tiny.SIDE, 1), np.uint8)
    rows = scored(engine, 2)
    for row in rows:
        row.image = message[7]
    group = Group("shop", rows, None)
    assert [row.image for row in rows] == [None, None]
    assert not any(np.shares_memory(image, message) for image in group.images)
    assert [image.shape for image in group.images] == [(tiny.SIDE, tiny.SIDE, 1)] * 2


def test_queries_of_several_callers_are_those_of_their_own_rows(engine: Engine) -> None:
    images = tiny.images(5, seed=3)
    measured, later = engine.measure(images), engine.measure(images[::-1].copy())

    def row(batch: Measurements, place: int, image: np.ndarray) -> Scored:
        return Scored(measured=batch, row=place, queue_s=0.0, inference_s=0.0, batch_size=5, image=image)

    groups = [
        Group("one", [row(measured, 3, images[3])], None),
        Group("other", [row(measured, 0, images[0]), row(later, 0, images[4])], None),
        Group("one", [row(measured, 2, images[2])], None),
    ]
    found = observer._queries(groups)
    assert [query.client for query in found] == ["one", "other", "other", "one"]
    for query, place in zip(found, (3, 0, 4, 2), strict=True):
        assert (query.image == images[place]).all()
        assert query.embedding == pytest.approx(measured.outputs.embedding[place], abs=1e-6)
        assert query.label == measured.labels[place]
        assert query.margin == pytest.approx(measured.margins[place])
        assert query.p_value == pytest.approx(measured.fused_p_value[place])
