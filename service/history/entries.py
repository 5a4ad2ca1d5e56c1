"""A query as the store takes it, and what it finds near it."""

from dataclasses import dataclass

import numpy as np

from service.history.types import Float32s, Integers, Keys, Slots

__all__ = ["ANONYMOUS", "NO_ONE", "Entry", "Near", "nearest_of"]

ANONYMOUS = 0
"""The number of the client whom nobody vouches for."""


@dataclass(eq=False, slots=True)
class Entry:
    """A query as the store takes it."""

    client: int
    digest: int
    sketches: tuple[Keys, ...]
    """(SKETCH,) under the secret in use, and under the next one while there are both."""
    cells: Keys
    """(T,) keys of the embedding, among everyone's."""
    own_cells: Keys
    """(T,) keys of it among those of the client."""
    embedding: Float32s
    label: int
    marks: int
    now: float


@dataclass(frozen=True, slots=True)
class Near:
    """The nearest kept queries of one scope; slots are -1 where there is none."""

    by_pixels: int
    matches: int
    """Keys that the sketches share."""
    pixel_distance: float
    """Between the embeddings."""
    by_embedding: int
    distance: float


NO_ONE = Near(-1, 0, np.inf, -1, np.inf)


def nearest_of(slots: Slots, shared: Integers, distances: Float32s) -> Near:
    """Of candidates, the one that shares most keys, and the one at the least distance."""
    if not len(slots):
        return NO_ONE
    by_pixels, by_embedding = int(shared.argmax()), int(distances.argmin())
    return Near(
        by_pixels=int(slots[by_pixels]) if shared[by_pixels] else -1,
        matches=int(shared[by_pixels]),
        pixel_distance=float(distances[by_pixels]),
        by_embedding=int(slots[by_embedding]),
        distance=float(distances[by_embedding]),
    )
