"""The queries that were kept last: who shares how many keys with a new one."""

import numpy as np
import pytest

from service.history.entries import Entry
from service.history.fingerprints import SKETCH
from service.history.recent import RECENT, Recent
from service.history.types import Keys

DIMENSIONS = 4


def entry(sketch: Keys, number: int) -> Entry:
    return Entry(
        client=1 + number % 3,
        digest=1 + number,
        generation=0,
        sketches=(sketch,),
        cells=np.zeros(1, np.uint32),
        own_cells=np.zeros(1, np.uint32),
        embedding=np.zeros(DIMENSIONS, np.int16),
        label=0,
        margin=1.0,
        marks=0,
        now=0.0,
    )


def kept(sketches: Keys, pieces: list[int], gone: dict[int, int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """What each query shares most with among everyone's and among those of client 1; pieces are entered at once."""
    recent = Recent(DIMENSIONS)
    recent.clear(list(range(RECENT)))
    found, start = [], 0
    for piece in pieces:
        part = sketches[start : start + piece]
        recent.enter(start, np.zeros((piece, DIMENSIONS), np.int16), np.ones(piece, np.uint64), part)
        for number in range(start, start + piece):
            sharing = recent.put(entry(sketches[number], number))
            if number in gone:
                recent.drop(gone[number])
            nobody = (-1, 0)
            every = sharing.most(recent.bits) if sharing else nobody
            found.append((every, sharing.most(recent.of_client(1)) if sharing else nobody))
        start += piece
    return found


def expected(sketches: Keys, gone: dict[int, int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The same by comparing each with each."""
    found, are_gone = [], set[int]()
    for number, sketch in enumerate(sketches):
        if number in gone:
            are_gone.add(gone[number])
        counts = {
            other: sum(key > 0 and key in set(sketches[other].tolist()) for key in sketch.tolist())
            for other in range(number)
            if other not in are_gone
        }
        ranked = sorted(((count, other) for other, count in counts.items() if count), reverse=True)
        own = [one for one in ranked if one[1] % 3 == 0]
        found.append(tuple((one[0][1], one[0][0]) if one else (-1, 0) for one in (ranked, own)))
    return found


@pytest.mark.parametrize("most", [40, 400, 100_000], ids=["nearly all shared", "some shared", "hardly any shared"])
@pytest.mark.parametrize("pieces", [[RECENT], [1] * RECENT, [24, 1, 39]], ids=["at once", "one by one", "in pieces"])
def test_what_is_shared_is_what_comparing_each_with_each_gives(most: int, pieces: list[int]) -> None:
    generator = np.random.default_rng(most)
    sketches = np.sort(generator.integers(0, most, (RECENT, SKETCH), dtype=np.uint32), axis=1)  # some keys twice
    sketches[5] = 0  # a flat image
    sketches[7, :30] = 0
    gone = {20: 3, 21: 20, 40: 7}  # dropped after a later one was put
    found = kept(sketches, pieces, gone)
    assert found == expected(sketches, gone)
    assert sum(every != (-1, 0) for every, _ in found) >= (60 if most < 100_000 else 1)
