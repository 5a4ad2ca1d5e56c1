"""The last near-boundary queries of each client, with which his next one is compared.

Probes of a boundary that reach far are near each other only by a wide radius. Few unrelated images lie near a boundary,
and fewer near one place of it, so among those a wide radius says as much as a small one among all; the index, made for
the small one, would miss most of them. Nothing of this is in a snapshot: after a restart it is filled again.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.history.entries import ANONYMOUS, NEAR, UNIT, Entry
from service.history.reserved import reserved
from service.history.types import Float64s, Slots

__all__ = ["BOUNDARY_BYTES", "LAST", "Beside", "Boundary"]

LAST = 8
"""Near-boundary queries of a client that are remembered."""
ENTRIES = 128
"""Kept queries for each client that there is room for; most clients have no near-boundary answer of late."""
_CLIENT_BYTES = 400
"""Of Python's table, for each client."""
BOUNDARY_BYTES = 4 + (LAST * 8 + _CLIENT_BYTES) / ENTRIES
"""What all of it takes, for each entry of the store."""
_NONE = -1


@dataclass(frozen=True, slots=True)
class Beside:
    """One of a client's last near-boundary queries, and how far a new one is from it."""

    slot: int
    distance: float


class Boundary:
    """Rings of slots, of the clients with near-boundary answers of late; of nobody there is none."""

    def __init__(self, capacity: int, embeddings_of: Callable[[Sequence[int]], Float64s]) -> None:
        """Takes how many slots the store has, and what gives the (n, D) embeddings of n of them, in whole numbers."""
        self._most = max(1, capacity // ENTRIES)
        self._embeddings_of = embeddings_of
        self._slots = np.full((self._most, LAST), _NONE, np.int64)
        self._place: NDArray[np.int32] = reserved(capacity, np.int32)  # of a slot, in all rings, from 1 on
        self._rings: OrderedDict[int, list[int]] = OrderedDict()  # client -> its ring, and where it goes on

    @property
    def nbytes(self) -> int:
        """Of the arrays, and about that of the table of clients."""
        return self._slots.nbytes + self._place.nbytes + _CLIENT_BYTES * len(self._rings)

    def before(self, entry: Entry) -> list[Beside]:
        """The client's last, the latest first; none before a query that is not near a boundary."""
        found = self._rings.get(entry.client)
        if found is None or not entry.marks & NEAR:
            return []
        ring, at = found
        every = self._slots[ring].tolist()
        slots = [slot for number in range(LAST) if (slot := every[(at - 1 - number) % LAST]) != _NONE]
        apart = self._embeddings_of(slots) - entry.embedding  # whole numbers, so sums are exact
        distances = (np.sqrt((apart * apart).sum(axis=1)) / UNIT).tolist()
        return [Beside(slot, distance) for slot, distance in zip(slots, distances, strict=True)]

    def put(self, entry: Entry, slot: int) -> None:
        """Remembers a near-boundary query of a client in place of his last but seven."""
        if entry.client == ANONYMOUS or not entry.marks & NEAR:
            return
        found = self._rings.get(entry.client)
        if found is None:
            ring = len(self._rings)
            if ring == self._most:
                ring = self._rings.popitem(last=False)[1][0]
                self._drop(self._slots[ring])
                self._slots[ring] = _NONE
            found = self._rings[entry.client] = [ring, 0]
        else:
            self._rings.move_to_end(entry.client)
        ring, at = found
        found[1] = (at + 1) % LAST
        self._drop(self._slots[ring, at : at + 1])
        self._slots[ring, at], self._place[slot] = slot, ring * LAST + at + 1

    def forget(self, slots: Slots) -> None:
        """Takes slots out."""
        places = self._place[slots]
        self._slots.reshape(-1)[places[places > 0] - 1] = _NONE
        self._place[slots] = 0

    def _drop(self, slots: Slots) -> None:
        self._place[slots[slots != _NONE]] = 0
