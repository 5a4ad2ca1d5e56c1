"""Queries of a batch are seen as they are one by one, whatever happens between them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from service.history.bounds import Bounds
from service.history.calibration import Calibration
from service.history.history import History
from service.history.types import NOBODY, Observation, Query
from tests.service.history import toy

CLIENTS = ("a", "b", "c", NOBODY)


def stream(seed: int, count: int, every: float) -> list[Query]:
    """Searches, videos, repeats, flat images and random traffic of some clients, mixed."""
    generator = np.random.default_rng(seed)
    searches = [iter(toy.asked(toy.square, 100, seed + number)) for number in range(2)]
    searches.append(iter(toy.asked(toy.boundary, 100, seed + 2)))
    video = iter(toy.frames(generator, count // 4))
    images: list[np.ndarray] = []
    for kind in generator.integers(0, 10, count).tolist():
        if kind < 3:
            image = next(searches[kind], None)
        elif kind == 3:
            image = next(video, None)
        elif kind < 6 and images:
            image = images[int(generator.integers(max(0, len(images) - 300), len(images)))]
        else:
            image = None
        if image is None:
            image = np.full_like(images[0], kind) if kind == 9 and images else toy.pictures(generator, 1)[0]
        images.append(image)
    steps = generator.exponential(every, count).cumsum().tolist()
    clients = generator.choice(len(CLIENTS), count, p=(0.6, 0.2, 0.1, 0.1)).tolist()
    return [
        replace(query, client=CLIENTS[client], now=now)
        for query, client, now in zip(toy.stream(np.stack(images), "", start=0.0), clients, steps, strict=True)
    ]


def parts(queries: Sequence[Query], seed: int) -> Iterator[Sequence[Query]]:
    generator, start = np.random.default_rng(seed), 0
    while start < len(queries):
        size = int(generator.choice([1, 3, 32, 70, 150]))
        yield queries[start : start + size]
        start += size


@pytest.mark.parametrize(
    ("bounds", "every"),
    [
        (Bounds(entries=256, client_share=1.0), 0.1),
        (Bounds(entries=400, client_share=0.1), 0.1),
        (Bounds(entries=500, window_s=20.0, buckets=4, rotate_s=60.0), 0.2),
        (Bounds(entries=300, window_s=60.0, buckets=8, rotate_s=120.0, client_share=0.5), 0.2),
    ],
    ids=["all full", "a share full", "expiry and rotation", "everything"],
)
def test_a_batch_is_seen_as_its_queries_one_by_one(calibration: Calibration, bounds: Bounds, every: float) -> None:
    queries = stream(int(every * 1000) + bounds.entries, 600, every)
    one_by_one, together = (
        History(calibration, dimensions=toy.DIMENSIONS, bounds=bounds, secret=b"s" * 32) for _ in range(2)
    )
    expected, seen = list[Observation](), list[Observation]()
    for part in parts(queries, 1):
        expected += [one_by_one.observe(query) for query in part]
        seen += together.observe_all(part)
        assert seen == expected
        assert len(together) == len(one_by_one) <= bounds.entries
    assert any(one.is_repeat for one in seen)
    assert any(one.own and one.own.pixel_links for one in seen)
    for one, other in zip(one_by_one.store.index.postings, together.store.index.postings, strict=True):
        np.testing.assert_array_equal(one.slots(), other.slots())
