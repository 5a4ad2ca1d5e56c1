"""The queries that are kept, within bounds of time, count and bytes, and the nearest of them to a new one."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from service.history.bounds import CLIENT_BYTES, FIELDS, Bounds
from service.history.entries import ANONYMOUS, NO_ONE, Entry, Near, nearest_of
from service.history.fingerprints import SKETCH
from service.history.postings import Postings
from service.history.projections import TABLES, of_client
from service.history.types import Integers, Keys, Slots

__all__ = ["Store"]

SWEPT = 64
"""Expired entries that are cleared away with each query, so that none has to wait for all."""
DRAWN = 256
"""Slots that are looked at to find one to push out."""
CANDIDATES = 64
"""Entries that are compared with a query, of those that share most keys with it."""
LEAST_VOTES = 2
"""Keys of a sketch that a candidate shares."""
_UNIT = 32767
"""What 1 is as a 16-bit number."""


class Store:
    """Arrays of fixed size, of which each query has a slot.

    When it is full, the client with most entries loses one; one who has his share loses one of his own. Of some that
    are drawn at random the one goes that belongs to the smallest component, the oldest of these. So a flood of images
    that have nothing to do with each other pushes out itself, and neither others nor the trail of its sender's search.
    """

    def __init__(self, bounds: Bounds, dimensions: int, generator: np.random.Generator) -> None:
        """Takes a generator whose seed is secret.

        Raises:
            SetupError: the bounds leave too little room.
        """
        self.bounds = bounds
        self.capacity = bounds.capacity(dimensions)
        self._generator = generator
        shapes = {name: ((self.capacity, columns), kind) for name, (kind, columns) in FIELDS.items()}
        made = {name: np.zeros(shape if shape[1] else shape[0], kind) for name, (shape, kind) in shapes.items()}
        self.bucket, self.client, self.digest = made["bucket"], made["client"], made["digest"]
        self.repeats, self.label, self.marks = made["repeats"], made["label"], made["marks"]
        self.since, self.cells, self.own_cells = made["since"], made["cells"], made["own_cells"]
        self._free = made["free"]
        self._free[:] = np.arange(self.capacity)[::-1]
        self._left = self.capacity
        self.embeddings = np.zeros((self.capacity, dimensions), np.int16)
        self.sketches = [np.zeros((self.capacity, SKETCH), np.uint32)]
        self._pixels = [Postings(self.capacity, SKETCH, generator)]
        self._twins = Postings(self.capacity, 1, generator)
        self._everyone = Postings(self.capacity, TABLES, generator)
        self._own = Postings(self.capacity, TABLES, generator)
        self._counts: dict[int, int] = {}
        self._base: float | None = None
        self._bucket = 1
        self._oldest = 1
        self._expired = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self.capacity - self._left

    @property
    def nbytes(self) -> int:
        """Of all arrays, and about that of the table of clients."""
        tables = sum(index.table.nbytes for index in self.indexes) + sum(sketch.nbytes for sketch in self.sketches)
        fields = sum(getattr(self, "_free" if name == "free" else name).nbytes for name in FIELDS)
        return int(fields + self.embeddings.nbytes + tables + CLIENT_BYTES * len(self._counts))

    @property
    def indexes(self) -> tuple[Postings, ...]:
        """All that find queries by a key."""
        return (*self._pixels, self._twins, self._everyone, self._own)

    def count(self, client: int) -> int:
        """How many entries a client has."""
        return self._counts.get(client, 0)

    def slots_of(self, client: int) -> Slots:
        """The slots of a client's entries."""
        return np.flatnonzero((self.client == np.uint64(client)) & (self.bucket >= self._oldest))

    def advance(self, now: float) -> bool:
        """Sets the clock, which never goes back; gives whether a bucket has expired."""
        if self._base is None:
            self._base = now
        bucket = 1 + int((now - self._base) / (self.bounds.window_s / self.bounds.buckets))
        if bucket <= self._bucket:
            return False
        self._bucket = bucket
        self._oldest = max(1, bucket - self.bounds.buckets)
        self._expired = np.flatnonzero((self.bucket > 0) & (self.bucket < self._oldest))
        return len(self._expired) > 0

    def sweep(self) -> Slots:
        """Clears some of what has expired, and gives its slots."""
        slots, self._expired = self._expired[:SWEPT], self._expired[SWEPT:]
        self._clear(slots)
        return slots

    def make_room(self, client: int, worth: Callable[[Slots], Integers]) -> Slots:
        """Pushes an entry out where one more of this client would be too many; gives its slot.

        Args:
            worth: of slots; what is worth least goes first.
        """
        share = int(self.bounds.client_share * self.capacity)
        if client != ANONYMOUS and self.count(client) >= share:
            loser = client
        elif self._left == 0:
            drawn = self._drawn()
            loser = max(set(self.client[drawn].tolist()), key=self.count)
        else:
            return np.empty(0, np.int64)
        drawn = self._drawn()
        theirs = drawn[self.client[drawn] == np.uint64(loser)]
        if not len(theirs):
            theirs = np.flatnonzero((self.client == np.uint64(loser)) & (self.bucket > 0))[:DRAWN]
        order = np.lexsort((self.bucket[theirs], worth(theirs)))
        slots: Slots = theirs[order[:1]]
        self._clear(slots)
        return slots

    def _drawn(self) -> Slots:
        drawn = self._generator.integers(0, self.capacity, DRAWN)
        return np.asarray(drawn[self.bucket[drawn] > 0])

    def put(self, entry: Entry) -> int:
        """Keeps a query, and gives its slot; there must be room."""
        self._left -= 1
        slot = int(self._free[self._left])
        self.bucket[slot], self.client[slot], self.digest[slot] = self._bucket, entry.client, entry.digest
        self.repeats[slot], self.label[slot], self.marks[slot] = 0, entry.label, entry.marks
        self.since[slot] = entry.now
        self.cells[slot], self.own_cells[slot] = entry.cells, entry.own_cells
        self.embeddings[slot] = np.rint(entry.embedding * _UNIT)
        for generation, sketch in enumerate(entry.sketches):
            self.sketches[generation][slot] = sketch
            if sketch[-1]:
                self._pixels[generation].add(sketch[sketch > 0], slot)
        self._twins.add(_short(np.array([entry.digest], np.uint64)), slot)
        self._everyone.add(entry.cells, slot)
        if entry.client != ANONYMOUS:
            self._own.add(of_client(entry.own_cells, np.array(entry.client, np.uint64)), slot)
        self._counts[entry.client] = self.count(entry.client) + 1
        return slot

    def twin(self, digest: int) -> int:
        """The slot of a kept query of the same pixels, -1 where there is none."""
        value = np.array([digest], np.uint64)
        found = self._alive(self._twins.find(_short(value)))
        same = found[self.digest[found] == value]
        return int(same[0]) if len(same) else -1

    def nearest(self, entry: Entry) -> tuple[Near, Near]:
        """The nearest of the client's own queries, and of everyone's."""
        client = np.array(entry.client, np.uint64)
        sketch = entry.sketches[0]
        by_pixels, matches = self._by_pixels(sketch[sketch > 0])
        found = self._everyone.find(entry.cells)
        if entry.client != ANONYMOUS:
            found = np.concatenate([found, self._own.find(of_client(entry.own_cells, client))])
        by_embedding = self._voted(found, 1)
        slots = np.concatenate([by_pixels, by_embedding])
        if not len(slots):
            return NO_ONE, NO_ONE
        cosines = self.embeddings[slots].astype(np.float32) @ entry.embedding / _UNIT
        distances = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * cosines))
        shared = np.concatenate([matches, np.zeros(len(by_embedding), np.int64)])
        everyone = nearest_of(slots, shared, distances)
        if entry.client == ANONYMOUS:
            return NO_ONE, everyone
        is_own = self.client[slots] == client
        return nearest_of(slots[is_own], shared[is_own], distances[is_own]), everyone

    def _by_pixels(self, sketch: Keys) -> tuple[Slots, Integers]:
        """Slots that may be near, and how many keys of (m,) each shares."""
        found = self._voted(self._pixels[0].find(sketch), LEAST_VOTES)
        if not len(found):
            return found, np.empty(0, np.int64)
        places = np.searchsorted(sketch, self.sketches[0][found])  # (f, SKETCH)
        is_shared = sketch[np.minimum(places, len(sketch) - 1)] == self.sketches[0][found]
        return found, np.count_nonzero(is_shared, axis=1)

    def _voted(self, found: Slots, least: int) -> Slots:
        """Of slots found under several keys, those found most often, the last of equal ones by slot."""
        slots, votes = np.unique(self._alive(found), return_counts=True)
        slots, votes = slots[votes >= least], votes[votes >= least]
        return slots if len(slots) <= CANDIDATES else slots[np.argpartition(votes, -CANDIDATES)[-CANDIDATES:]]

    def _alive(self, slots: Slots) -> Slots:
        return slots[self.bucket[slots] >= self._oldest]

    def _clear(self, slots: Slots) -> None:
        """Takes entries out of everything; their slots are free."""
        if not len(slots):
            return
        for sketches, index in zip(self.sketches, self._pixels, strict=True):
            index.remove(sketches[slots], slots)
        self._twins.remove(_short(self.digest[slots])[:, None], slots)
        self._everyone.remove(self.cells[slots], slots)
        self._own.remove(of_client(self.own_cells[slots], self.client[slots]), slots)
        for client in self.client[slots].tolist():
            left = self._counts[client] - 1
            if left:
                self._counts[client] = left
            else:
                del self._counts[client]
        self.bucket[slots] = 0
        self._free[self._left : self._left + len(slots)] = slots
        self._left += len(slots)

    def begin_next(self) -> None:
        """From now on entries bring sketches under the next secret, too."""
        self.sketches.append(np.zeros((self.capacity, SKETCH), np.uint32))
        self._pixels.append(Postings(self.capacity, SKETCH, self._generator))

    def end_last(self) -> None:
        """Drops the sketches under the secret in use for those under the next."""
        del self.sketches[0], self._pixels[0]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that is kept, by name."""
        found: dict[str, NDArray[np.generic]] = {name: getattr(self, name) for name in FIELDS if name != "free"}
        found |= {"free": self._free, "embeddings": self.embeddings}
        found |= {f"sketches{number}": sketches for number, sketches in enumerate(self.sketches)}
        found |= {f"pixels{number}": index.table for number, index in enumerate(self._pixels)}
        found |= {"twins": self._twins.table, "everyone": self._everyone.table, "own": self._own.table}
        found["clock"] = np.array([self._base or 0.0, self._bucket, self._oldest, self._left])
        return found

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Takes what `arrays` gave.

        Raises:
            ValueError: an array is missing or of another type or size.
        """
        own = self.arrays()
        for name, array in own.items():
            found = arrays.get(name)
            if found is None or found.shape != array.shape or found.dtype != array.dtype:
                raise ValueError(f"{name}: expected {array.dtype} {array.shape}, got {_of_kind(found)}")
            array[...] = found
        self._base, clock = float(own["clock"][0]), own["clock"][1:].astype(np.int64).tolist()
        self._bucket, self._oldest, self._left = clock
        clients, counts = np.unique(self.client[self.bucket > 0], return_counts=True)
        self._counts = dict(zip(clients.tolist(), counts.tolist(), strict=True))
        self._expired = np.flatnonzero((self.bucket > 0) & (self.bucket < self._oldest))


def _of_kind(array: NDArray[np.generic] | None) -> str:
    return "none" if array is None else f"{array.dtype} {array.shape}"


def _short(digests: NDArray[np.uint64]) -> Keys:
    return (digests >> np.uint64(32)).astype(np.uint32)
