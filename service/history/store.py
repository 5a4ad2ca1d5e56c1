"""The queries that are kept, within bounds of time, count and bytes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.history.bounds import CLIENT_BYTES, FIELDS, Bounds
from service.history.entries import ANONYMOUS, Entry
from service.history.fingerprints import SKETCH
from service.history.index import Index, Rows
from service.history.postings import Postings
from service.history.recent import RECENT, Recent, Sharing
from service.history.reserved import reserved
from service.history.types import Float64s, Integers, Keys, Shorts, Slots

__all__ = ["Store", "rows_of"]

CLEARED = 256
"""What has expired is cleared away in such portions, so that no query has to wait for all."""
DRAWN = 64
"""Slots that are looked at to find one to push out."""
_NEVER = np.iinfo(np.int64).max
_INDEXES = ("pixels", "twins", "everyone", "own")

Number = TypeVar("Number", np.int16, np.uint32)
Worth = Callable[[Slots], Integers]
KeysOf = Callable[[Shorts], tuple[Keys, Keys]]


class Store:
    """Arrays of which each query has a slot; slots are used one after the other, and take memory from then on.

    When it is full, the client with most entries loses one; one who has his share loses one of his own. Of some that
    are drawn at random the one goes that belongs to the smallest component, the oldest of these. So a flood of images
    that have nothing to do with each other pushes out itself, and neither others nor the trail of its sender's search.

    The index learns of `RECENT` queries at once (`settle`) and does not change between, so that many can be looked for
    together and find what each would find alone. What was pushed out or has expired is dead at once, and its slot is
    free again only when the index no longer has it; there are `RECENT` slots more than entries for that.
    """

    def __init__(self, bounds: Bounds, dimensions: int, generator: np.random.Generator, keys_of: KeysOf) -> None:
        """Begins with none.

        Args:
            dimensions: of the embeddings.
            generator: its seed must be secret.
            keys_of: of embeddings, what they are kept under, (N, TABLES) among everyone's and among those of a client.

        Raises:
            SetupError: the bounds leave too little room.
        """
        self.bounds = bounds
        self.capacity = bounds.capacity(dimensions)
        self._width = bounds.window_s / bounds.buckets
        self._generator = generator
        slots = self.capacity + RECENT
        made: dict[str, Any] = {name: reserved(slots, kind) for name, kind in FIELDS.items()}
        self.bucket, self.client, self.digest = made["bucket"], made["client"], made["digest"]
        self.repeats, self.label, self.marks = made["repeats"], made["label"], made["marks"]
        self.since, self._free = made["since"], made["free"]
        self._free[:] = np.arange(slots)[::-1]
        self._left = slots
        self._used = 0  # slots from here on were never written to
        self.embeddings: Shorts = reserved((slots, dimensions), np.int16)
        self.sketches: list[Keys] = [reserved((slots, SKETCH), np.uint32)]
        self._keys_of = keys_of
        self.index = Index(slots, generator)
        self.recent = Recent(dimensions)
        self._counts: dict[int, int] = {}
        self._size = 0
        self._dead: list[int] = []
        self._expired = np.empty(0, np.int64)
        self._drawn: tuple[Slots, Integers] | None = None
        self._base: float | None = None
        self._bucket = 1
        self._begin()

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Of what was written to of all arrays, and about that of the recent queries and of the table of clients."""
        tables = sum(postings.nbytes for postings in self.index.postings)
        arrays = (self.embeddings, *self.sketches, *(getattr(self, name) for name in FIELDS if name != "free"))
        written = self._used * sum(array.nbytes // len(array) for array in arrays)
        return int(written + self._free.nbytes + tables + self.recent.nbytes + CLIENT_BYTES * len(self._counts))

    def count(self, client: int) -> int:
        """How many entries a client has."""
        return self._counts.get(client, 0)

    def slots_of(self, client: int) -> Slots:
        """The slots of a client's entries, the recent ones last."""
        used = slice(self._used)
        settled = np.flatnonzero((self.client[used] == np.uint64(client)) & (self.bucket[used] > 0))
        return np.concatenate([settled, np.array(self.recent.slots_of(client), np.int64)])

    def is_later(self, now: float) -> bool:
        """Whether the clock would go on by a bucket."""
        return self._base is None or self._at(now) > self._bucket

    def advance(self, now: float) -> Slots:
        """Sets the clock, which never goes back; gives the slots of what has expired with that, which are dead.

        What was kept before must be settled.
        """
        if self._base is None:
            self._base = now - now % self._width  # so that all whose bounds are equal cut time at the same moments
        self._bucket = max(self._bucket, self._at(now))
        buckets = self.bucket[: self._used]
        slots = np.flatnonzero((buckets > 0) & (buckets < self._bucket - self.bounds.buckets))
        clients, counts = np.unique(self.client[slots], return_counts=True)
        for client, count in zip(clients.tolist(), counts.tolist(), strict=True):
            self._count(client, -count)
        self.bucket[slots] = 0
        self._expired = np.concatenate([self._expired, slots])
        return slots

    def _at(self, now: float) -> int:
        return 1 + int((now - (self._base or 0.0)) / self._width)

    def put(self, entry: Entry) -> tuple[int, Sharing | None]:
        """Keeps a query; gives its slot, and which of the recent queries share keys with it.

        There must be room among them.
        """
        slot = self.recent.slots[len(self.recent)]
        sharing = self.recent.put(entry)
        self._count(entry.client, 1)
        return slot, sharing

    def embeddings_of(self, slots: Sequence[int]) -> Float64s:
        """(n, D) of kept queries, whole numbers."""
        recent, found = self.recent, np.asarray(self.embeddings[list(slots)], np.float64)
        for number, slot in enumerate(slots):
            if (place := recent.place(slot)) >= 0:
                found[number] = recent.embeddings[place]
        return found

    def lasts(self, slot: int, now: float) -> bool:
        """Whether a kept query is within the window at a time, too."""
        bucket = self._bucket if self.recent.place(slot) >= 0 else int(self.bucket[slot])
        return bucket >= self._at(now) - self.bounds.buckets

    def repeated(self, slot: int) -> int:
        """Counts that a kept query came again; gives how often it did."""
        place = self.recent.place(slot)
        repeats: list[int] | NDArray[np.uint32] = self.recent.repeats if place >= 0 else self.repeats
        number = place if place >= 0 else slot
        repeats[number] += 1
        return int(repeats[number])

    def push_out(self, client: int, worth: Worth) -> int:
        """Pushes an entry out where there are too many, or too many of this client; gives its slot, else -1.

        Args:
            worth: of slots; what is worth least goes first.
        """
        loser: int | None = None
        if client != ANONYMOUS and self.count(client) > int(self.bounds.client_share * self.capacity):
            loser = client
        elif self._size <= self.capacity:
            return -1
        slot = self._loss(loser, worth)
        place = self.recent.place(slot)
        if place >= 0:
            self._count(self.recent.entries[place].client, -1)
            self.recent.drop(place)
        else:
            self._count(int(self.client[slot]), -1)
            self.bucket[slot] = 0
            self._dead.append(slot)
        return slot

    def _loss(self, loser: int | None, worth: Worth) -> int:
        """What goes of a client, or of the one who has most of those drawn."""
        if self._drawn is None:
            drawn = self._generator.integers(0, len(self._free), (RECENT, DRAWN))
            self._drawn = (drawn, (worth(drawn.ravel()) << 32).reshape(drawn.shape) | self.bucket[drawn])
        number = len(self.recent) - 1
        drawn, worths = self._drawn[0][number], self._drawn[1][number]
        clients, is_kept = self.client[drawn], self.bucket[drawn] > 0
        if loser is None:
            loser = max(set(clients[is_kept].tolist()) or self._counts, key=self.count)
        worths = np.where(is_kept & (clients == np.uint64(loser)), worths, _NEVER)
        least = int(worths.argmin())
        if worths[least] >> 32 <= 1:  # hangs together with nothing, as most do
            return int(drawn[least])
        others = self.slots_of(loser)[-DRAWN:]  # the recent ones, who are not drawn, and some more where they are few
        of_others = worth(others)
        other = int(of_others.argmin())
        return int(others[other] if of_others[other] < worths[least] >> 32 else drawn[least])

    def settle(self) -> None:
        """Brings the index up to date."""
        recent, entries = self.recent, self.recent.entries
        self._left -= len(entries)
        self._used = max(self._used, len(self._free) - self._left)
        kept = [place for place in range(len(entries)) if not recent.is_gone[place]]
        unused = [recent.slots[place] for place in range(len(entries)) if recent.is_gone[place]]
        missing = RECENT - (len(self._free) - self._size - len(self._dead) - len(self._expired))
        portion = max(CLEARED, missing)
        cleared = np.concatenate([np.array(self._dead, np.int64), self._expired[:portion]])
        self._expired, self._dead = self._expired[portion:], []
        if len(cleared):
            self.index.remove(self._rows(cleared), cleared)
        if kept:
            self._write(np.array([recent.slots[place] for place in kept]), kept)
        freed = np.concatenate([cleared, np.array(unused, np.int64)])
        self._free[self._left : self._left + len(freed)] = freed
        self._left += len(freed)
        self._begin()

    def _begin(self) -> None:
        self.recent.clear(self._free[self._left - RECENT : self._left][::-1].tolist())
        self._drawn = None

    def _write(self, slots: Slots, places: Sequence[int]) -> None:
        entries = [self.recent.entries[place] for place in places]
        rows = rows_of(entries)
        self.bucket[slots], self.client[slots] = self._bucket, rows.clients
        self.digest[slots], self.embeddings[slots] = rows.digests, rows.embeddings
        self.label[slots] = [entry.label for entry in entries]
        self.marks[slots] = [entry.marks for entry in entries]
        self.since[slots] = [entry.now for entry in entries]
        self.repeats[slots] = [self.recent.repeats[place] for place in places]
        for kept, sketches in zip(self.sketches, rows.sketches, strict=True):
            kept[slots] = sketches
        self.index.add(rows, slots)

    def _rows(self, slots: Slots) -> Rows:
        cells, own_cells = self._keys_of(self.embeddings[slots])
        return Rows(
            digests=self.digest[slots],
            clients=self.client[slots],
            sketches=[sketches[slots] for sketches in self.sketches],
            cells=cells,
            own_cells=own_cells,
            embeddings=self.embeddings[:0],
        )

    def _count(self, client: int, change: int) -> None:
        self._size += change
        count = self._counts.get(client, 0) + change
        if count:
            self._counts[client] = count
        else:
            del self._counts[client]

    def begin_next(self) -> None:
        """From now on entries bring sketches under the next secret, too; what was kept before must be settled."""
        self.sketches.append(reserved(self.sketches[0].shape, np.uint32))

    def end_last(self) -> None:
        """Drops the sketches under the secret in use for those under the next; what was kept must be settled."""
        del self.sketches[0]
        slots = np.flatnonzero(self.bucket[: self._used])
        self.index.turn(self.sketches[0], slots[self.since[slots].argsort(kind="stable")])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that is kept and settled, by name."""
        used = slice(self._used)
        found: dict[str, NDArray[np.generic]] = {name: getattr(self, name)[used] for name in FIELDS if name != "free"}
        found |= {"free": self._free[len(self._free) - self._used :], "embeddings": self.embeddings[used]}
        found |= {f"sketches{number}": sketches[used] for number, sketches in enumerate(self.sketches)}
        found["clock"] = np.array([self._base or 0.0, self._bucket, self._left, self._used])
        for name in _INDEXES:
            arrays = getattr(self.index, name).arrays()
            found |= {f"{name}.{part}": array for part, array in arrays.items()}
        return found

    def restore(self, array_of: Callable[[str], NDArray[Any]]) -> None:
        """Takes what `arrays` gave, by name, one after the other.

        Raises:
            KeyError: an array is missing.
            ValueError: one is of another type or size.
        """
        self._base, *clock = array_of("clock").tolist()
        self._bucket, self._left, self._used = map(int, clock)
        if not 0 <= len(self._free) - self._used <= self._left <= len(self._free):
            raise ValueError(f"clock: expected up to {len(self._free)} slots, got {clock}")
        for name in _INDEXES:
            postings: Postings = getattr(self.index, name)
            postings.restore(partial(_part, array_of, name))
        for name, array in self.arrays().items():
            if name == "clock" or "." in name:
                continue
            found = array_of(name)
            if found.shape != array.shape or found.dtype != array.dtype:
                raise ValueError(f"{name}: expected {array.dtype} {array.shape}, got {found.dtype} {found.shape}")
            array[...] = found
        used = slice(self._used)
        clients, counts = np.unique(self.client[used][self.bucket[used] > 0], return_counts=True)
        self._counts = dict(zip(clients.tolist(), counts.tolist(), strict=True))
        self._size = sum(self._counts.values())
        is_taken = np.ones(len(self._free), np.bool_)
        is_taken[self._free[: self._left]] = False
        self._expired = np.flatnonzero(is_taken[used] & (self.bucket[used] == 0))
        self._begin()


def rows_of(entries: Sequence[Entry]) -> Rows:
    """Of one entry or more, with sketches under the same secrets."""
    return Rows(
        digests=np.array([entry.digest for entry in entries], np.uint64),
        clients=np.array([entry.client for entry in entries], np.uint64),
        sketches=[_stacked(generation) for generation in zip(*(entry.sketches for entry in entries), strict=True)],
        cells=_stacked([entry.cells for entry in entries]),
        own_cells=_stacked([entry.own_cells for entry in entries]),
        embeddings=_stacked([entry.embedding for entry in entries]),
    )


def _stacked(rows: Sequence[NDArray[Number]]) -> NDArray[Number]:
    """(N, K) of rows (K,); several times as fast as `numpy.array` and `numpy.stack`."""
    return np.concatenate(rows).reshape(len(rows), -1)


def _part(array_of: Callable[[str], NDArray[Any]], whole: str, part: str) -> NDArray[Any]:
    return array_of(f"{whole}.{part}")
