"""An inverted index of bounded size: key to the queries that have it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.history.reserved import reserved
from service.history.types import Keys, Slots

__all__ = ["EMPTY", "LOAD", "PLACES", "Postings", "place_bytes"]

PLACES = 8
"""In a bucket."""
LOAD = 0.7
"""Share of the places that are taken when every slot is."""
EMPTY = 0xFFFFFFFF
"""No slot."""
PACKED = 0.75
"""Share of the buckets that may be in use before each has its place; until then they lie in the order of their use."""
_AT_ONCE = 65_536
"""Buckets that are moved together."""


class Postings:
    """Buckets of a few places each, whose number never changes.

    A key's bucket is found by one modulo, so that looking up and adding take the same time however many queries are
    kept. A list is bounded by its bucket: when that is full, a newcomer takes the place of one drawn at random. Keys of
    different queries may share a bucket, so what is found is a candidate, to be compared by the caller.

    A few queries meet buckets all over. So that they take memory for these alone, a bucket gets its row when it is used
    first, and a table says which; when most buckets are in use, rows are put in their order and the table goes.
    """

    def __init__(self, slots: int, keys: int, generator: np.random.Generator) -> None:
        """Takes how many slots there are, and how many keys each has."""
        self._buckets = buckets(slots, keys)
        self._kinds = (np.dtype(np.uint16), np.dtype(np.uint8 if place_bytes(slots) == 3 else np.uint16))
        self._rows = self._reserved(1 + self._buckets)
        """Low and high bits of a slot and 1; 0 where there is none, as in all of the first row while there is a
        table."""
        self._row_of: NDArray[np.uint32] | None = reserved(self._buckets, np.uint32)
        """Of each bucket; None when it is the bucket itself."""
        self._used = 1
        """Rows, while there is a table."""
        self._generator = generator

    @property
    def nbytes(self) -> int:
        """What was written to."""
        each = PLACES * sum(kind.itemsize for kind in self._kinds)
        if self._row_of is None:
            return self._buckets * each
        return self._used * each + (self._row_of.nbytes if self._used > 1 else 0)

    def find(self, keys: Keys) -> Keys:
        """(N, m) keys to (N, m `PLACES`) slots in their buckets, as often as they are there, and `EMPTY` elsewhere."""
        return self._held(self._places(self._of(keys))).reshape(len(keys), -1)

    def add(self, keys: Keys, slots: Slots) -> None:
        """Enters (M,) slots, each under one of (M,) keys."""
        numbers = self._of(keys)
        numbers <<= 32  # with their order in the bits below, which sorts faster than a stable sort
        numbers |= np.arange(len(numbers))
        numbers.sort()
        slots = slots[numbers & 0xFFFFFFFF]
        numbers >>= 32
        count = np.arange(len(numbers))
        is_first = np.ones(len(numbers), np.bool_)
        is_first[1:] = numbers[1:] != numbers[:-1]
        ranks = count - np.maximum.accumulate(np.where(is_first, count, 0))  # among newcomers to one bucket
        self._use(numbers[is_first])
        rows = self._places(numbers)
        empty = (self._held(rows) == EMPTY).cumsum(axis=1, dtype=np.int8)  # (M, PLACES)
        columns = (empty > ranks[:, None]).argmax(axis=1)
        is_full = empty[:, -1] <= ranks
        columns[is_full] = self._generator.integers(0, PLACES, np.count_nonzero(is_full))
        low, high = self._rows
        low[rows, columns], high[rows, columns] = slots + 1 & 0xFFFF, slots + 1 >> 16

    def remove(self, keys: Keys, slots: Slots) -> None:
        """Takes (r,) slots out, which were entered under (r, m) keys."""
        rows = self._places(self._of(keys))  # (r, m)
        is_there = self._held(rows) == slots.astype(np.uint32)[:, None, None]
        numbers, keys_of, columns = is_there.nonzero()
        for part in self._rows:
            part[rows[numbers, keys_of], columns] = 0

    def slots(self) -> Keys:
        """Of each bucket, (buckets, PLACES) slots, `EMPTY` where there is none."""
        return self._held(self._places(np.arange(self._buckets)))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that is in it, by name."""
        table = np.empty(0, np.uint32) if self._row_of is None else self._row_of
        rows = self._buckets if self._row_of is None else self._used
        return {"low": self._rows[0][:rows], "high": self._rows[1][:rows], "row_of": table}

    def restore(self, array_of: Callable[[str], NDArray[Any]]) -> None:
        """Takes what `arrays` gave, by name.

        Raises:
            ValueError: it is of another kind or size.
        """
        table, found = array_of("row_of"), [array_of("low"), array_of("high")]
        rows = len(found[0])
        if len(table):
            if table.shape != (self._buckets,) or not rows <= 1 + self._buckets or table.max() >= rows:
                raise ValueError(f"expected {self._buckets} buckets, got {len(table)} with {rows} rows")
            self._row_of, self._used = reserved(self._buckets, np.uint32), rows
            self._row_of[:] = table
        elif rows != self._buckets:
            raise ValueError(f"expected {self._buckets} buckets, got {rows}")
        else:
            self._row_of, self._used = None, 1
        self._rows = self._reserved(1 + self._buckets)
        for part, one in zip(self._rows, found, strict=True):
            if one.shape != (rows, PLACES) or one.dtype != part.dtype:
                raise ValueError(f"expected rows of {part.dtype} {(rows, PLACES)}, got {one.dtype} {one.shape}")
            part[:rows] = one

    def _of(self, keys: Keys) -> Slots:
        return (keys % np.uint32(self._buckets)).astype(np.int64)

    def _places(self, numbers: Slots) -> Slots:
        """Buckets to their rows; the first row for one that is not in use."""
        return numbers if self._row_of is None else self._row_of.take(numbers).astype(np.int64)

    def _held(self, rows: Slots) -> Keys:
        """(...,) rows to (..., PLACES) slots."""
        low, high = (part.take(rows, axis=0) for part in self._rows)
        slots = high.astype(np.uint32)
        slots <<= 16
        slots |= low
        slots -= 1  # and so none is EMPTY
        return slots

    def _use(self, numbers: Slots) -> None:
        """Gives buckets, all different, a row."""
        if self._row_of is None:
            return
        new = numbers[self._row_of.take(numbers) == 0]
        self._row_of[new] = np.arange(self._used, self._used + len(new))
        self._used += len(new)
        if self._used > PACKED * self._buckets:
            ordered = self._reserved(self._buckets)
            for start in range(0, self._buckets, _AT_ONCE):
                places = self._row_of[start : start + _AT_ONCE]
                for part, rows in zip(ordered, self._rows, strict=True):
                    part[start : start + _AT_ONCE] = rows.take(places, axis=0)
            self._rows, self._row_of = ordered, None

    def _reserved(self, rows: int) -> tuple[NDArray[Any], ...]:
        return tuple(reserved((rows, PLACES), kind) for kind in self._kinds)


def buckets(slots: int, keys: int) -> int:
    """How many buckets so many slots with so many keys each want.

    >>> buckets(1000, 50)
    8929
    """
    return math.ceil(slots * keys / (PLACES * LOAD))


def place_bytes(slots: int) -> int:
    """What one place takes where there are so many slots.

    >>> place_bytes(100_000), place_bytes(20_000_000)
    (3, 4)
    """
    return 3 if slots < 2**24 else 4
