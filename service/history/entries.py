"""A query as the history keeps it, and what it finds near it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from service.history.types import Float32s, Keys, Shorts

__all__ = ["ADVERSARIAL", "ANONYMOUS", "FLAT", "NEAR", "STEP", "UNIT", "Entry", "Near", "shortened"]

ANONYMOUS = 0
"""The number of the client whom nobody vouches for."""
ADVERSARIAL, NEAR, FLAT = 1, 2, 4
"""Marks: the verdict, that the answer was near a boundary, and that the image has too few distinct pieces."""
STEP = 8
"""A mark that comes when it is compared: it added to what speaks against its client's queries or everyone's."""
UNIT = 16383
"""What 1 is as a 16-bit number; differences of two such are 16-bit numbers, too."""


@dataclass(eq=False, slots=True)
class Entry:
    """A query as the history keeps it: all that is compared and counted of it, and nothing else."""

    client: int
    """Keyed hash of the name, `ANONYMOUS` without one."""
    digest: int
    """Keyed hash of the pixels, never 0."""
    generation: int
    """Of the secret that the first sketch is under."""
    sketches: tuple[Keys, ...]
    """(SKETCH,) under the secret in use, and under the next one while there are both."""
    cells: Keys
    """(CELLS,) keys of the embedding, among everyone's; it is kept under the first TABLES of them."""
    own_cells: Keys
    """(CELLS,) keys of it among those of the client."""
    embedding: Shorts
    """(D,) in units of 1 / `UNIT`."""
    label: int
    margin: float
    marks: int
    now: float

    @property
    def is_low_entropy(self) -> bool:
        """Too few pieces of the image are distinct to recognise it by them."""
        return bool(self.marks & FLAT)


def shortened(embeddings: Float32s) -> Shorts:
    """Embeddings of unit L2 norm in 16-bit numbers."""
    return np.asarray(np.rint(embeddings * np.float32(UNIT)), np.int16)


class Near(NamedTuple):
    """The nearest kept queries of one scope; slots are -1 where there is none."""

    by_pixels: int
    matches: int
    """Keys that the sketches share."""
    pixel_distance: float
    """Between the embeddings."""
    by_embedding: int
    distance: float
