"""What the history keeps at most, and what an entry takes."""

from dataclasses import dataclass

import numpy as np

from service.errors import SetupError
from service.history.boundary import BOUNDARY_BYTES
from service.history.components import RECORD
from service.history.fingerprints import SKETCH
from service.history.postings import LOAD, place_bytes
from service.history.projections import TABLES
from service.history.recent import RECENT, recent_bytes

__all__ = ["CLIENT_BYTES", "FIELDS", "LEAST_ENTRIES", "Bounds", "bytes_per_entry"]

LEAST_ENTRIES = 256
CLIENT_BYTES = 190
"""Of Python's table of clients, for each."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What is kept at most."""

    entries: int = 100_000
    max_bytes: int = 256 * 2**20
    """Of everything together, at the worst; fewer entries are kept where it does not do."""
    window_s: float = 3600.0
    """For how long at least; up to one bucket longer."""
    buckets: int = 16
    """That the window is cut into; what expires is dropped bucket by bucket."""
    client_share: float = 0.25
    """Of the entries, that one client may have."""
    rotate_s: float = 86_400.0
    """After how long another secret takes the place of the fingerprints' secret, counted from 1970; two windows at
    least."""

    def __post_init__(self) -> None:
        if self.window_s <= 0 or self.buckets < 1:
            raise SetupError(f"expected a window and buckets above 0, got {self.window_s:g} s and {self.buckets}")
        if not 1 / 16 <= self.client_share <= 1:
            raise SetupError(f"expected a client's share of 0.0625 to 1 of the entries, got {self.client_share:g}")
        if self.rotate_s < 2 * self.window_s:
            raise SetupError(
                f"expected the secret to be kept for two windows, {2 * self.window_s:g} s, or more, got "
                f"{self.rotate_s:g} s"
            )

    @property
    def kept_s(self) -> float:
        """For how long a query is kept at most."""
        return self.window_s * (1 + 1 / self.buckets)

    def generations(self, now: float) -> tuple[int, ...]:
        """The fingerprints' secrets at a time, by number: one, and towards its end the one that follows, too.

        By time alone, so that all who have the bounds agree. Both overlap for as long as a query is kept.

        >>> [Bounds(rotate_s=9000).generations(now) for now in (0, 5000, 6000, 9000)]
        [(0,), (0,), (0, 1), (1,)]
        """
        number = int(now // self.rotate_s)
        return (number,) if now < (number + 1) * self.rotate_s - self.kept_s else (number, number + 1)

    def capacity(self, dimensions: int) -> int:
        """How many entries fit.

        >>> [Bounds(max_bytes=64 * 2**20).capacity(dimensions) for dimensions in (128, 256)]
        [48080, 40528]

        Raises:
            SetupError: too few to be of use.
        """
        each = bytes_per_entry(dimensions, self.entries)
        most = min(self.entries, (self.max_bytes - recent_bytes(dimensions) - RECENT * each) // each)
        if most < LEAST_ENTRIES:
            raise SetupError(
                f"history: expected room for {LEAST_ENTRIES} queries or more, got {most}: an entry of a {dimensions}-d "
                f"embedding takes up to {each} bytes; allow more entries or bytes"
            )
        return most


FIELDS: dict[str, type[np.generic]] = {
    "bucket": np.uint32,
    "client": np.uint64,
    "digest": np.uint64,
    "repeats": np.uint32,
    "label": np.int32,
    "marks": np.uint8,
    "since": np.float64,
    "free": np.uint32,
}
"""Arrays of the store beside sketches and embeddings."""


def bytes_per_entry(dimensions: int, entries: int = 0) -> int:
    """The most that one of so many entries takes, while a secret is replaced and if each had a client of its own."""
    fields = sum(np.dtype(kind).itemsize for kind in FIELDS.values())
    sketches = 2 * SKETCH * 4
    index = (SKETCH + 2 * TABLES + 1) * place_bytes(entries + RECENT) / LOAD
    components = BOUNDARY_BYTES + 2 * (4 + (RECORD.itemsize + 32) / 2)
    return round(fields + sketches + 2 * dimensions + index + components + CLIENT_BYTES + 0.5)
