"""Where candidates for the nearest kept queries come from: four inverted indexes."""

from dataclasses import dataclass

import numpy as np

from service.history.entries import ANONYMOUS
from service.history.fingerprints import SKETCH
from service.history.postings import EMPTY, PLACES, Postings
from service.history.projections import CELLS, TABLES, of_client
from service.history.types import Hashes, Keys, Shorts, Slots

__all__ = ["Candidates", "Index", "Rows"]

CANDIDATES = 64
"""Entries of each view that are compared with a query, of those that share most keys with it."""
LEAST_VOTES = 2
"""Keys of a sketch that a candidate shares."""
_AT_ONCE = 256
"""Sketches that are entered together."""


@dataclass(kw_only=True, eq=False, slots=True)
class Rows:
    """N entries, an array for each of their fields."""

    digests: Hashes
    """(N,) of their pixels."""
    clients: Hashes
    """(N,) numbers."""
    sketches: list[Keys]
    """Of each generation (N, SKETCH)."""
    cells: Keys
    own_cells: Keys
    """(N, CELLS) each, or (N, TABLES) of what is kept."""
    embeddings: Shorts
    """(N, D)."""


@dataclass(kw_only=True, eq=False, slots=True)
class Candidates:
    """Slots found for some queries, all arrays (F,): those of the first view, then those of the second.

    Within one view they are in the order of queries, and of those found most often.
    """

    queries: Slots
    places: Slots
    """From 0 for each query and view."""
    slots: Slots
    by_pixels: int
    """How many are of the first view."""


class Index:
    """What is entered stays until it is taken out, and is found under the keys of its sketch, its cells and its pixels.

    Looking up changes nothing, so that what is found hangs on what was entered and taken out alone.
    """

    def __init__(self, slots: int, generator: np.random.Generator) -> None:
        """Takes how many slots there are."""
        self._slots, self._generator = slots, generator
        self.pixels = Postings(slots, SKETCH, generator)
        """By the sketches under the secret in use."""
        self.twins = Postings(slots, 1, generator)
        self.everyone = Postings(slots, TABLES, generator)
        self.own = Postings(slots, TABLES, generator)

    @property
    def postings(self) -> tuple[Postings, ...]:
        """All of them."""
        return (self.pixels, self.twins, self.everyone, self.own)

    def of_digests(self, digests: Hashes) -> Keys:
        """(N,) hashes of pixels to (N, PLACES) slots that may have the same, `EMPTY` elsewhere."""
        return self.twins.find(_short(digests)[:, None])

    def candidates(self, rows: Rows) -> Candidates:
        """Slots that share `LEAST_VOTES` keys of their sketch or more with a query, and those in one of its cells."""
        count, sketches, width = len(rows.clients), rows.sketches[0], PLACES * CELLS
        found = np.full((2 * count, PLACES * max(SKETCH, 2 * CELLS)), EMPTY, np.uint32)
        found[:count, : PLACES * SKETCH] = self.pixels.find(sketches)
        if not sketches[:, 0].all():
            found[:count].reshape(count, -1, PLACES)[:, :SKETCH][sketches == 0] = EMPTY
        found[count:, :width] = self.everyone.find(rows.cells)
        found[count:, width : 2 * width] = self.own.find(of_client(rows.own_cells, rows.clients))
        found[count:, width : 2 * width][rows.clients == ANONYMOUS] = EMPTY

        found.sort(axis=1)
        is_first = np.ones(found.shape, np.bool_)
        np.not_equal(found[:, 1:], found[:, :-1], out=is_first[:, 1:])
        firsts = np.flatnonzero(is_first)
        slots, votes = found.ravel()[firsts], np.empty_like(firsts)
        np.subtract(firsts[1:], firsts[:-1], out=votes[:-1])
        votes[-1] = found.size - firsts[-1]
        is_found = (votes >= LEAST_VOTES) | (firsts >= count * found.shape[1])
        is_found &= slots != EMPTY
        firsts = firsts[is_found]
        ranked = firsts // found.shape[1] << 48
        ranked |= 0xFFFF - votes[is_found] << 32
        ranked |= slots[is_found]
        ranked.sort()  # by query, falling votes, slot
        queries = ranked >> 48
        starts = np.searchsorted(queries, np.arange(2 * count))
        places = np.arange(len(ranked)) - starts[queries]
        if len(places) and places.max() >= CANDIDATES:
            is_kept = places < CANDIDATES
            queries, places, ranked = queries[is_kept], places[is_kept], ranked[is_kept]
        by_pixels = int(np.searchsorted(queries, count))
        queries[by_pixels:] -= count
        return Candidates(queries=queries, places=places, slots=ranked & 0xFFFFFFFF, by_pixels=by_pixels)

    def add(self, rows: Rows, slots: Slots) -> None:
        """Enters (N,) slots."""
        self._add_sketches(rows.sketches[0], slots)
        self.twins.add(_short(rows.digests), slots)
        self.everyone.add(rows.cells[:, :TABLES].ravel(), slots.repeat(TABLES))
        is_known = rows.clients != ANONYMOUS
        own_cells = of_client(rows.own_cells[is_known, :TABLES], rows.clients[is_known])
        self.own.add(own_cells.ravel(), slots[is_known].repeat(TABLES))

    def remove(self, rows: Rows, slots: Slots) -> None:
        """Takes (N,) slots out, which were entered with these rows."""
        self.pixels.remove(rows.sketches[0], slots)
        self.twins.remove(_short(rows.digests)[:, None], slots)
        self.everyone.remove(rows.cells, slots)
        self.own.remove(of_client(rows.own_cells, rows.clients), slots)

    def turn(self, sketches: Keys, slots: Slots) -> None:
        """Takes the sketches under another secret, of which (N,) slots are entered, in the place of all before.

        At once, and not with each entry while there are sketches under both: it takes as long, and memory for one.
        """
        del self.pixels
        self.pixels = Postings(self._slots, SKETCH, self._generator)
        for start in range(0, len(slots), _AT_ONCE):
            part = slots[start : start + _AT_ONCE]
            self._add_sketches(sketches[part], part)

    def _add_sketches(self, sketches: Keys, slots: Slots) -> None:
        places, columns = np.nonzero(sketches * (sketches[:, -1:] > 0))
        self.pixels.add(sketches[places, columns], slots[places])


def _short(digests: Hashes) -> Keys:
    return (digests >> np.uint64(32)).astype(np.uint32)
