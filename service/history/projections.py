"""The second view of a query: keys that near embeddings share."""

import numpy as np
from numpy.typing import NDArray

from service.history.entries import UNIT
from service.history.types import Float64s, Keys, Shorts

__all__ = ["CELLS", "PROBES", "TABLES", "Projections", "of_client"]

TABLES = 16
PROBES = 2
"""Cells of a table that a query is looked for in: its own, and the one beside it that it lies nearest to."""
CELLS = PROBES * TABLES
LINES = 8
"""Projections that make one key."""
WIDTH = 4.0
"""Of a cell, in radii of the search."""
_FINE = 2.0**20
"""What 1 is, in lines of integers."""
_COLUMNS = np.arange(TABLES)
_TABLES = _COLUMNS.astype(np.uint64)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing


class Projections:
    """Random projections cut into cells (Datar et al. 2004, locality-sensitive hashing for the Euclidean norm).

    Two embeddings at the radius from each other fall into one cell of one line with probability 0.8, of all `LINES` of
    a table with 0.17, into a cell that is looked in (Lv et al. 2007, multi-probe) with 0.28, and that in some table
    with 0.99; at half the radius with more than 0.9999. The more lines, the fewer share a cell and are lost from its
    list. Cells are as wide as the search is, wherever the embeddings lie, so classes that lie close together do not
    spoil it as they would planes
    through the origin.
    """

    def __init__(self, dimensions: int, radius: float, generator: np.random.Generator) -> None:
        """Takes the radius within which others are looked for; the generator's seed must be secret."""
        lines = TABLES * LINES
        self._lines = np.rint(generator.standard_normal((dimensions, lines)) * _FINE)
        self._scale = 1 / (WIDTH * radius * _FINE * UNIT)
        self._shifts = generator.uniform(0, 1, lines)
        self._factors = generator.integers(0, 2**63, (LINES, TABLES), dtype=np.uint64) * np.uint64(2) + np.uint64(1)

    def keys(self, embeddings: Shorts) -> Keys:
        """(N, D) embeddings in 16-bit numbers to (N, CELLS) keys to look under; they are kept under the first TABLES.

        Products and sums are of integers, and exact, so that keys do not hang on the batch.
        """
        places, floors = self._places(embeddings)
        own = self._cells(floors)
        places -= floors
        places -= 0.5
        above = places.reshape(-1, LINES, TABLES)  # the middle of the cell
        lines = np.abs(above).argmax(axis=1)  # (N, T), that leave the cell soonest
        steps = self._factors[lines, _COLUMNS]
        is_below = np.take_along_axis(above, lines[:, None], axis=1)[:, 0] < 0
        np.negative(steps, out=steps, where=is_below)
        return _folded(np.concatenate([own, own + steps], axis=1))

    def own_keys(self, embeddings: Shorts) -> Keys:
        """The (N, TABLES) of them that they are kept under."""
        return _folded(self._cells(self._places(embeddings)[1]))

    def _places(self, embeddings: Shorts) -> tuple[Float64s, Float64s]:
        """(N, L T) of them on the lines, in cells; and those rounded down."""
        places = embeddings.astype(np.float64) @ self._lines
        places *= self._scale
        places += self._shifts
        return places, np.floor(places)

    def _cells(self, floors: Float64s) -> NDArray[np.uint64]:
        cells = floors.astype(np.int64).view(np.uint64).reshape(-1, LINES, TABLES)
        cells *= self._factors
        return np.asarray(cells.sum(axis=1) + _TABLES)


def of_client(keys: Keys, clients: NDArray[np.uint64]) -> Keys:
    """Other keys for the same cells, which only queries of one client share.

    Args:
        keys: (..., m).
        clients: of the same shape without its last axis.
    """
    return _folded(keys + clients[..., None])


def _folded(values: NDArray[np.uint64]) -> Keys:
    mixed = values * _SPREAD
    mixed ^= mixed >> np.uint64(29)
    mixed *= _SPREAD
    return (mixed >> np.uint64(32)).astype(np.uint32)
