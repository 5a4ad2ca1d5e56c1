from collections.abc import Sequence

import numpy as np
import pytest

from service.history.boundary import ENTRIES, LAST, Boundary
from service.history.entries import ANONYMOUS, NEAR, Entry, shortened

DIMENSIONS = 4


def entry(angle: float, *, client: int = 1, marks: int = NEAR) -> Entry:
    keys = np.zeros(1, np.uint32)
    return Entry(
        client=client,
        digest=1,
        generation=0,
        sketches=(keys,),
        cells=keys,
        own_cells=keys,
        embedding=shortened(np.array([np.cos(angle), np.sin(angle), 0, 0], np.float32)),
        label=0,
        margin=0.0,
        marks=marks,
        now=0.0,
    )


class World:
    """A boundary, and the store that has the embeddings of its slots."""

    def __init__(self, clients: int = 3) -> None:
        self._kept: dict[int, np.ndarray] = {}
        self._boundary = Boundary(clients * ENTRIES, self._embeddings_of)
        self.before, self.forget = self._boundary.before, self._boundary.forget

    def _embeddings_of(self, slots: Sequence[int]) -> np.ndarray:
        return np.array([self._kept[slot] for slot in slots]).reshape(-1, DIMENSIONS)

    def put(self, one: Entry, slot: int) -> None:
        self._kept[slot] = one.embedding.astype(np.float64)
        self._boundary.put(one, slot)


def boundary(clients: int = 3) -> World:
    return World(clients)


def slots(kept: World, one: Entry) -> list[int]:
    return [beside.slot for beside in kept.before(one)]


def test_a_clients_last_are_found_with_their_distances_the_latest_first() -> None:
    kept = boundary()
    for slot, angle in enumerate((0.0, 0.5, 1.0)):
        kept.put(entry(angle), slot)
    found = kept.before(entry(0.6))
    assert [beside.slot for beside in found] == [2, 1, 0]
    assert [beside.distance for beside in found] == pytest.approx(
        [2 * np.sin(0.2), 2 * np.sin(0.05), 2 * np.sin(0.3)], abs=1e-3
    )


def test_only_near_boundary_queries_of_the_same_client_are_compared() -> None:
    kept = boundary()
    kept.put(entry(0.0), 0)
    kept.put(entry(0.0, client=2, marks=0), 1)
    kept.put(entry(0.0, client=ANONYMOUS), 2)
    assert slots(kept, entry(0.0)) == [0]
    others = (entry(0.0, marks=0), entry(0.0, client=2), entry(0.0, client=ANONYMOUS))
    assert [slots(kept, other) for other in others] == [[]] * 3


def test_the_last_ones_take_the_place_of_earlier_ones() -> None:
    kept = boundary()
    for slot in range(LAST + 1):
        kept.put(entry(slot / 10), slot)
    assert slots(kept, entry(0.0)) == [8, 7, 6, 5, 4, 3, 2, 1]
    kept.forget(np.array([1, 2, 100]))
    assert slots(kept, entry(0.0)) == [8, 7, 6, 5, 4, 3]


def test_a_slot_that_is_used_again_is_another_clients() -> None:
    kept = boundary()
    kept.put(entry(0.0), 5)
    kept.forget(np.array([5]))
    kept.put(entry(0.0, client=2), 5)
    assert slots(kept, entry(0.0)) == []
    assert slots(kept, entry(0.0, client=2)) == [5]


def test_of_too_many_clients_the_one_goes_who_was_quiet_longest() -> None:
    kept = boundary(clients=3)
    for slot, client in enumerate((1, 2, 3, 1, 4)):
        kept.put(entry(0.0, client=client), slot)
    assert [slots(kept, entry(0.0, client=client)) for client in (1, 2, 3, 4)] == [[3, 0], [], [2], [4]]
    kept.forget(np.array([1]))
    assert slots(kept, entry(0.0, client=4)) == [4]
