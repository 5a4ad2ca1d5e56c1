"""The last near-boundary queries of each client, with which his next one is compared.

Probes of a boundary that reach far are near each other only by a wide radius. Few unrelated images lie near a boundary,
and fewer near one place of it, so among those a wide radius says as much as a small one among all; the index, made for
the small one, would miss most of them. Nothing of this is in a snapshot: after a restart it is filled again.
"""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from service.history.entries import ANONYMOUS, NEAR, UNIT, Entry
from service.history.types import Slots

__all__ = ["LAST", "Beside", "Boundary", "boundary_bytes"]

LAST = 8
"""Near-boundary queries of a client that are remembered."""
ENTRIES = 128
"""Kept queries for each client that there is room for; most clients have no near-boundary answer of late."""
_CLIENT_BYTES = 400
"""Of Python's table, for each client."""
_NONE = -1


@dataclass(frozen=True, slots=True)
class Beside:
    """One of a client's last near-boundary queries, and how far a new one is from it."""

    slot: int
    distance: float


def boundary_bytes(dimensions: int) -> float:
    """What all of it takes, for each entry of the store."""
    return 4 + (LAST * (2 * dimensions + 8) + _CLIENT_BYTES) / ENTRIES


class Boundary:
    """Rings of slots and embeddings, of the clients with near-boundary answers of late; of nobody there is none."""

    def __init__(self, capacity: int, dimensions: int) -> None:
        """Takes that of the store."""
        self._most = max(1, capacity // ENTRIES)
        self._embeddings = np.zeros((self._most, LAST, dimensions), np.int16)
        self._slots = np.full((self._most, LAST), _NONE, np.int64)
        self._place = np.full(capacity, _NONE, np.int32)  # of a slot, in all rings
        self._rings: OrderedDict[int, list[int]] = OrderedDict()  # client -> its ring, and where it goes on

    @property
    def nbytes(self) -> int:
        """Of the arrays, and about that of the table of clients."""
        arrays = self._embeddings.nbytes + self._slots.nbytes + self._place.nbytes
        return arrays + _CLIENT_BYTES * len(self._rings)

    def before(self, entry: Entry) -> list[Beside]:
        """The client's last, the latest first; none before a query that is not near a boundary."""
        found = self._rings.get(entry.client)
        if found is None or not entry.marks & NEAR:
            return []
        ring, at = found
        apart = self._embeddings[ring] - entry.embedding.astype(np.float64)  # whole numbers, so sums are exact
        distances = (np.sqrt((apart * apart).sum(axis=1)) / UNIT).tolist()
        slots = self._slots[ring].tolist()
        order = [(at - 1 - number) % LAST for number in range(LAST)]
        return [Beside(slots[place], distances[place]) for place in order if slots[place] != _NONE]

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
        self._slots[ring, at], self._place[slot] = slot, ring * LAST + at
        self._embeddings[ring, at] = entry.embedding

    def forget(self, slots: Slots) -> None:
        """Takes slots out."""
        places = self._place[slots]
        self._slots.reshape(-1)[places[places != _NONE]] = _NONE
        self._place[slots] = _NONE

    def _drop(self, slots: Slots) -> None:
        self._place[slots[slots != _NONE]] = _NONE
