"""An inverted index of fixed size: key to the queries that have it."""

import math

import numpy as np

from service.history.types import Keys, Slots

__all__ = ["EMPTY", "PLACES", "Postings"]

PLACES = 8
"""In a bucket."""
LOAD = 0.7
"""Share of the places that are taken when every slot is."""
EMPTY = 0xFFFFFFFF
"""No slot."""


class Postings:
    """Buckets of a few places each, in one array that never grows.

    A key's bucket is found by one modulo, so that looking up and adding take the same time however many queries are
    kept. A list is bounded by its bucket: when that is full, a newcomer takes the place of one drawn at random. Keys of
    different queries may share a bucket, so what is found is a candidate, to be compared by the caller.
    """

    def __init__(self, slots: int, keys: int, generator: np.random.Generator) -> None:
        """Takes how many slots there are, and how many keys each has."""
        self._buckets = buckets(slots, keys)
        self.table = np.full((self._buckets, PLACES), EMPTY, np.uint32)
        self._generator = generator

    def find(self, keys: Keys) -> Keys:
        """(N, m) keys to (N, m `PLACES`) slots in their buckets, as often as they are there, and `EMPTY` elsewhere."""
        return self.table.take(self._of(keys), axis=0).reshape(len(keys), -1)

    def add(self, keys: Keys, slots: Slots) -> None:
        """Enters (M,) slots, each under one of (M,) keys."""
        places = self._of(keys)
        order = places.argsort(kind="stable")
        places, slots = places[order], slots[order]
        numbers = np.arange(len(places))
        is_first = np.ones(len(places), np.bool_)
        is_first[1:] = places[1:] != places[:-1]
        ranks = numbers - np.maximum.accumulate(np.where(is_first, numbers, 0))  # among newcomers to one bucket
        empty = (self.table.take(places, axis=0) == EMPTY).cumsum(axis=1, dtype=np.int8)  # (M, PLACES)
        columns = (empty > ranks[:, None]).argmax(axis=1)
        is_full = empty[:, -1] <= ranks
        columns[is_full] = self._generator.integers(0, PLACES, np.count_nonzero(is_full))
        self.table[places, columns] = slots

    def remove(self, keys: Keys, slots: Slots) -> None:
        """Takes (r,) slots out, which were entered under (r, m) keys."""
        places = self._of(keys)  # (r, m)
        is_there = self.table.take(places, axis=0) == slots.astype(np.uint32)[:, None, None]
        rows, keys_of, columns = is_there.nonzero()
        self.table[places[rows, keys_of], columns] = EMPTY

    def _of(self, keys: Keys) -> Slots:
        return (keys % np.uint32(self._buckets)).astype(np.int64)


def buckets(slots: int, keys: int) -> int:
    """How many buckets so many slots with so many keys each want.

    >>> buckets(1000, 50)
    8929
    """
    return math.ceil(slots * keys / (PLACES * LOAD))
