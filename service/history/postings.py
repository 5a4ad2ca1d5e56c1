"""An inverted index of fixed size: key to the queries that have it."""

import math

import numpy as np

from service.history.types import Keys, Slots

__all__ = ["Postings"]

PLACES = 8
"""In a bucket."""
LOAD = 0.7
"""Share of the places that are taken when every slot is."""
_EMPTY = np.uint32(0xFFFFFFFF)


class Postings:
    """Buckets of a few places each, in one array that never grows.

    A key's bucket is found by one modulo, so that looking up and adding take the same time however many queries are
    kept. A list is bounded by its bucket: when that is full, a newcomer takes the place of one drawn at random. Keys of
    different queries may share a bucket, so what is found is a candidate, to be compared by the caller.
    """

    def __init__(self, slots: int, keys: int, generator: np.random.Generator) -> None:
        """Takes how many slots there are, and how many keys each has."""
        self._buckets = buckets(slots, keys)
        self.table = np.full((self._buckets, PLACES), _EMPTY, np.uint32)
        self._generator = generator

    def find(self, keys: Keys) -> Slots:
        """Slots in the buckets of (m,) keys, as often as they are there."""
        found = self.table[self._of(keys)].ravel()
        return np.asarray(found[found != _EMPTY], np.int64)

    def add(self, keys: Keys, slot: int) -> None:
        """Enters a slot under (m,) keys."""
        places = self._of(keys)
        is_empty = self.table[places] == _EMPTY  # (m, PLACES)
        column = is_empty.argmax(axis=1)
        is_full = ~is_empty.any(axis=1)
        if is_full.any():
            column[is_full] = self._generator.integers(0, PLACES, int(is_full.sum()))
        self.table[places, column] = slot

    def remove(self, keys: Keys, slots: Slots) -> None:
        """Takes (r,) slots out, which were entered under (r, m) keys."""
        places = self._of(keys)[..., None] * PLACES + np.arange(PLACES)  # (r, m, PLACES)
        flat = self.table.reshape(-1)
        flat[places[flat[places] == slots[:, None, None]]] = _EMPTY

    def clear(self) -> None:
        """Takes all out."""
        self.table.fill(_EMPTY)

    def _of(self, keys: Keys) -> Slots:
        return (keys % np.uint32(self._buckets)).astype(np.int64)


def buckets(slots: int, keys: int) -> int:
    """How many buckets so many slots with so many keys each want.

    >>> buckets(1000, 50)
    8929
    """
    return math.ceil(slots * keys / (PLACES * LOAD))
