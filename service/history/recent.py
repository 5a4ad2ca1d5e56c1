"""The queries that were kept last, which each new one is compared with exactly; the index learns of them together."""

from collections.abc import Sequence

import numpy as np

from service.history.entries import ANONYMOUS, Entry
from service.history.fingerprints import SKETCH
from service.history.types import Float64s, Hashes, Keys, Shorts

__all__ = ["RECENT", "Recent", "Sharing", "recent_bytes"]

RECENT = 64
"""Queries at most."""
_SHARED_BYTES = 36
"""Of a number in a list."""
_ENTRY_BYTES = 1000
"""Of an entry's objects, beside its arrays' numbers."""
_IS_LATER = np.triu(np.ones((RECENT, RECENT), np.bool_))
"""Of two places, whether the second did not come before the first."""
_PLACES = np.arange(RECENT, dtype=np.uint64)
_BITS = np.uint64(RECENT.bit_length() - 1)


def recent_bytes(dimensions: int) -> int:
    """The most that they take together, beside their slots of the store."""
    each = 8 * dimensions + 17 + 2 * dimensions + (4 + 4 * 2) * SKETCH + RECENT * _SHARED_BYTES + _ENTRY_BYTES
    return RECENT * each


class Sharing:
    """How many keys of a query's sketch each of the recent queries has."""

    def __init__(self, ranked: Sequence[int]) -> None:
        """Takes `RECENT` times how many keys, plus the place of the query that has them; falling."""
        self._ranked = ranked

    def __len__(self) -> int:
        return len(self._ranked)

    def most(self, among: int) -> tuple[int, int]:
        """Of some queries, given as bits, the last of those that share most, and how many keys; (-1, 0) for none."""
        for one in self._ranked:
            if among >> one % RECENT & 1:
                return one % RECENT, one // RECENT
        return -1, 0


class Recent:
    """Up to `RECENT` queries by their place, in the order in which they came."""

    def __init__(self, dimensions: int) -> None:
        """Takes the embeddings' dimensions."""
        self.entries: list[Entry] = []
        self.repeats: list[int] = []
        self.slots: list[int] = []
        """Of all places, of those that are still to come too."""
        self.embeddings = np.zeros((RECENT, dimensions))
        """(R, D) in 64-bit numbers, in which sums of products of 16-bit integers are exact, in whatever order."""
        self.squares = np.zeros(RECENT)
        self.clients = np.zeros(RECENT, np.uint64)
        self.is_gone = np.zeros(RECENT, np.bool_)
        self._keys = np.zeros((RECENT, SKETCH), np.uint32)
        self._sharing: dict[int, Sharing] = {}
        self._of_clients: dict[int, int] = {}
        self._twins: dict[int, int] = {}
        self._places: dict[int, int] = {}
        self._bits = 0

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def nbytes(self) -> int:
        """Of its arrays, and about that of its entries and tables."""
        arrays = sum(array.nbytes for array in (self.embeddings, self.squares, self.clients, self.is_gone, self._keys))
        entries = sum(
            entry.embedding.nbytes + sum(sketch.nbytes for sketch in entry.sketches) for entry in self.entries
        )
        shared = sum(map(len, self._sharing.values()))
        return arrays + entries + len(self.entries) * _ENTRY_BYTES + shared * _SHARED_BYTES

    def twin(self, digest: int) -> int:
        """The slot of the query of these pixels, -1 for none."""
        return self._twins.get(digest, -1)

    def place(self, slot: int) -> int:
        """The place of the query of a slot, -1 for none."""
        return self._places.get(slot, -1)

    def slots_of(self, client: int) -> list[int]:
        """The slots of a client's queries."""
        kept = [place for place, entry in enumerate(self.entries) if entry.client == client and not self.is_gone[place]]
        return [self.slots[place] for place in kept]

    def put(self, entry: Entry) -> Sharing | None:
        """Keeps a query that was entered; gives which of those before it share its keys, None where none does."""
        place = len(self.entries)
        bit = 1 << place
        self._bits |= bit
        self._of_clients[entry.client] = self._of_clients.get(entry.client, 0) | bit
        self._twins[entry.digest] = self.slots[place]
        self._places[self.slots[place]] = place
        self.entries.append(entry)
        self.repeats.append(0)
        return self._sharing.pop(place, None)

    def enter(self, place: int, embeddings: Shorts, clients: Hashes, sketches: Keys) -> None:
        """Sets the embeddings, clients and sketches of those that are about to come, from a place on."""
        stop = place + len(clients)
        self._keys[place:stop] = sketches
        self._sharing = self._shared(place, stop)
        rows = self.embeddings[place:stop]
        rows[:] = embeddings
        self.squares[place:stop] = np.einsum("nd,nd->n", rows, rows)
        self.clients[place:stop] = clients

    def _shared(self, start: int, stop: int) -> dict[int, Sharing]:
        """Of the places from `start` to `stop` those that share keys with earlier ones.

        All keys are sorted at once, each with its place in its lowest bits; so those that are held more than once stand
        beside each other.
        """
        held = (self._keys[:stop].astype(np.uint64) << _BITS) | _PLACES[:stop, None]
        held = np.sort(held, axis=None)
        held = held[held.searchsorted(RECENT) :]  # 0 is no key
        keys = held >> _BITS
        is_same = keys[1:] == keys[:-1]
        if not is_same.any():
            return {}
        is_shared = np.zeros(len(held), np.bool_)
        is_shared[1:] = is_same
        is_shared[:-1] |= is_same
        keys, places = keys[is_shared], (held[is_shared] % RECENT).astype(np.int64)
        numbers = np.zeros(len(keys), np.int64)  # of the keys, each time they come
        np.cumsum(keys[1:] != keys[:-1], out=numbers[1:])
        holders = np.bincount(numbers * RECENT + places, minlength=(int(numbers[-1]) + 1) * RECENT)
        holders = holders.reshape(-1, RECENT).astype(np.float32)  # sums are small whole numbers, and exact
        shared = (holders[:, start:stop].T @ (holders > 0).astype(np.float32)).astype(np.int64)  # (n, RECENT)
        shared[_IS_LATER[start:stop]] = 0
        found = np.flatnonzero(shared.any(axis=1))
        ranked = shared[found] * RECENT + _PLACES.astype(np.int64)
        ranked.sort(axis=1)
        counts = np.count_nonzero(shared[found], axis=1).tolist()
        rows = zip(ranked[:, ::-1].tolist(), counts, strict=True)
        return dict(zip((start + found).tolist(), [Sharing(row[:count]) for row, count in rows], strict=True))

    def squares_to(self, start: int, stop: int) -> Float64s:
        """Squared distances of the places from `start` to `stop` to all before them: (n, stop), infinite elsewhere."""
        rows, others = self.embeddings[start:stop], self.embeddings[:stop]
        squares = self.squares[start:stop, None] + self.squares[:stop] - 2 * (rows @ others.T)
        squares[_IS_LATER[start:stop, :stop]] = np.inf
        squares[:, self.is_gone[:stop]] = np.inf
        return np.asarray(squares)

    def of_client(self, client: int) -> int:
        """The places of a client's queries, as bits; none of one whom nobody vouches for."""
        return 0 if client == ANONYMOUS else self._of_clients.get(client, 0) & self._bits

    @property
    def bits(self) -> int:
        """The places of all."""
        return self._bits

    def drop(self, place: int) -> None:
        """Takes one out."""
        self._bits &= ~(1 << place)
        self.is_gone[place] = True
        self._twins.pop(self.entries[place].digest, None)
        self._places.pop(self.slots[place], None)

    def clear(self, slots: list[int]) -> None:
        """Takes all out, and the slots of those to come."""
        for container in (self.entries, self.repeats, self._sharing, self._of_clients, self._twins, self._places):
            container.clear()
        self.slots, self._bits = slots, 0
        self.is_gone[:] = False
