"""The second view of a query: keys that near embeddings share."""

import numpy as np
from numpy.typing import NDArray

from service.history.types import Float32s, Keys

__all__ = ["TABLES", "Projections", "of_client"]

TABLES = 16
LINES = 6
"""Projections that make one key."""
WIDTH = 4.0
"""Of a cell, in radii of the search."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing


class Projections:
    """Random projections cut into cells (Datar et al. 2004, locality-sensitive hashing for the Euclidean norm).

    Two embeddings at the radius from each other fall into one cell of one line with probability 0.8, of all `LINES` of
    a table with 0.26, and of some table with 0.99; at half the radius with more than 0.9999. Cells are as wide as the
    search is, wherever the embeddings lie, so classes that lie close together do not spoil it as they would planes
    through the origin.
    """

    _factors: NDArray[np.uint64]

    def __init__(self, dimensions: int, radius: float, generator: np.random.Generator) -> None:
        """Takes the radius within which others are looked for; the generator's seed must be secret."""
        lines = TABLES * LINES
        scale = 1 / (WIDTH * radius)
        self._lines = (generator.standard_normal((dimensions, lines)) * scale).astype(np.float32)
        self._shifts = generator.uniform(0, 1, lines).astype(np.float32)
        self._factors = generator.integers(0, 2**63, (TABLES, LINES), dtype=np.uint64) * np.uint64(2) + np.uint64(1)

    def keys(self, embeddings: Float32s) -> Keys:
        """(N, D) embeddings to (N, TABLES) keys."""
        cells = np.floor(embeddings @ self._lines + self._shifts).astype(np.int64).view(np.uint64)  # (N, T L)
        mixed = (cells.reshape(-1, TABLES, LINES) * self._factors).sum(axis=2, dtype=np.uint64)
        return _folded(mixed + np.arange(TABLES, dtype=np.uint64))


def of_client(keys: Keys, clients: NDArray[np.uint64]) -> Keys:
    """Other keys for the same cells, which only queries of one client share.

    Args:
        keys: (..., TABLES).
        clients: of the same shape without its last axis.
    """
    return _folded(keys + clients[..., None])


def _folded(values: NDArray[np.uint64]) -> Keys:
    mixed = values * _SPREAD
    mixed ^= mixed >> np.uint64(29)
    mixed *= _SPREAD
    return (mixed >> np.uint64(32)).astype(np.uint32)
