"""The queries that were kept last, which each new one is compared with exactly; the index learns of them together."""

from collections.abc import Sequence

import numpy as np

from service.history.entries import ANONYMOUS, Entry
from service.history.fingerprints import SKETCH
from service.history.types import Float64s, Hashes, Shorts

__all__ = ["RECENT", "Recent", "Sharing", "recent_bytes"]

RECENT = 64
"""Queries at most."""
_KEY_BYTES = 84
"""Of Python's table of keys, for each."""
_ENTRY_BYTES = 1000
"""Of an entry's objects, beside its arrays' numbers."""
_IS_LATER = np.triu(np.ones((RECENT, RECENT), np.bool_))
"""Of two places, whether the second did not come before the first."""
_PLANES = SKETCH.bit_length()


def recent_bytes(dimensions: int) -> int:
    """The most that they take together, beside their slots of the store."""
    return RECENT * (8 * dimensions + 17 + 2 * dimensions + (8 + 4 * 2) * SKETCH + SKETCH * _KEY_BYTES + _ENTRY_BYTES)


class Sharing:
    """How many keys of a query's sketch each of the recent queries has.

    A counter for each of them, all of them in a few integers: bit p of the i-th integer is bit i of the counter of the
    p-th query.
    """

    def __init__(self, holders: Sequence[int]) -> None:
        """Takes for each key the queries that have it, as bits."""
        self._planes = [0] * (_PLANES + 1)
        for holder in holders:
            level, carry = 0, holder
            while carry and level <= _PLANES:
                self._planes[level], carry = self._planes[level] ^ carry, self._planes[level] & carry
                level += 1

    def most(self, among: int) -> tuple[int, int]:
        """Of some queries, given as bits, the last of those that share most, and how many keys; (-1, 0) for none."""
        best, count = among, 0
        for plane in reversed(self._planes):
            count *= 2
            if best & plane:
                best &= plane
                count += 1
        return (best.bit_length() - 1, count) if count else (-1, 0)


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
        self._holders: dict[int, int] = {}
        self._of_clients: dict[int, int] = {}
        self._twins: dict[int, int] = {}
        self._places: dict[int, int] = {}
        self._bits = 0

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def nbytes(self) -> int:
        """Of its arrays, and about that of its entries and tables."""
        arrays = self.embeddings.nbytes + self.squares.nbytes + self.clients.nbytes + self.is_gone.nbytes
        entries = sum(
            entry.embedding.nbytes + sum(sketch.nbytes for sketch in entry.sketches) for entry in self.entries
        )
        return arrays + entries + len(self.entries) * _ENTRY_BYTES + len(self._holders) * _KEY_BYTES

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
        """Keeps a query; gives which of those before it share its keys, None where none does."""
        place = len(self.entries)
        bit, holders, shared = 1 << place, self._holders, []
        keys = entry.sketches[0].tolist()
        for key in keys[keys.count(0) :]:
            others = holders.get(key)
            if others is None:
                holders[key] = bit
            else:
                shared.append(others)
                holders[key] = others | bit
        known = [held for others in shared if (held := others & self._bits)]
        self._bits |= bit
        self._of_clients[entry.client] = self._of_clients.get(entry.client, 0) | bit
        self._twins[entry.digest] = self.slots[place]
        self._places[self.slots[place]] = place
        self.entries.append(entry)
        self.repeats.append(0)
        return Sharing(known) if known else None

    def enter(self, place: int, embeddings: Shorts, clients: Hashes) -> None:
        """Sets the embeddings and clients of those that are about to come, from a place on."""
        stop = place + len(clients)
        rows = self.embeddings[place:stop]
        rows[:] = embeddings
        self.squares[place:stop] = np.einsum("nd,nd->n", rows, rows)
        self.clients[place:stop] = clients

    def squares_to(self, start: int, stop: int) -> Float64s:
        """Squared distances of the places from `start` to `stop` to all before them: (n, stop), infinite elsewhere."""
        rows, others = self.embeddings[start:stop], self.embeddings[:stop]
        squares = self.squares[start:stop, None] + self.squares[:stop] - 2 * np.einsum("nd,rd->nr", rows, others)
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
        for container in (self.entries, self.repeats, self._holders, self._of_clients, self._twins, self._places):
            container.clear()
        self.slots, self._bits = slots, 0
        self.is_gone[:] = False
