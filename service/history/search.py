"""The nearest kept queries of several new ones, each compared with those before it, the others among them too."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.history.entries import ANONYMOUS, UNIT, Entry, Near
from service.history.index import Rows
from service.history.postings import EMPTY
from service.history.recent import RECENT, Recent, Sharing
from service.history.store import Store, rows_of
from service.history.types import Float64s, Integers, Keys, Slots

__all__ = ["Found", "compared", "twins"]

_ROWS = 256
"""Embeddings compared at once, so that they stay in the processor's cache."""


@dataclass(eq=False, slots=True)
class Found:
    """What one query was compared with."""

    twin: int
    """Slot of a kept query of the same pixels, -1 for none; then there is nothing else."""
    own: Near
    everyone: Near
    """Without the sketches of the recent queries; see `with_recent`."""
    distances: Float64s
    """To the recent ones, by place."""

    @property
    def slots(self) -> tuple[int, ...]:
        """All that it speaks of."""
        own, everyone = self.own, self.everyone
        return (self.twin, own.by_pixels, own.by_embedding, everyone.by_pixels, everyone.by_embedding)

    def with_recent(self, sharing: Sharing, recent: Recent, client: int) -> tuple[Near, Near]:
        """The nearest of the client's own and of everyone's, by the sketches of the recent queries, too."""
        return (
            self._with(self.own, sharing, recent, recent.of_client(client)),
            self._with(self.everyone, sharing, recent, recent.bits),
        )

    def _with(self, near: Near, sharing: Sharing, recent: Recent, among: int) -> Near:
        place, matches = sharing.most(among)
        if matches <= near.matches:
            return near
        distance = float(self.distances[place])
        return near._replace(by_pixels=recent.slots[place], matches=matches, pixel_distance=distance)


_NO_ONE = Near(-1, 0, np.inf, -1, np.inf)
_NOTHING = np.empty(0)


def compared(store: Store, entries: Sequence[Entry]) -> list[Found]:
    """Of entries under the same secrets: those at the front that the recent queries have room for."""
    recent, found = store.recent, list[Found]()
    fresh, coming = list[Entry](), dict[int, int]()
    start = len(recent)
    for entry, kept in zip(entries, twins(store, entries), strict=True):
        twin = kept if kept >= 0 else coming.get(entry.digest, -1)
        if twin < 0:
            if start + len(fresh) == RECENT:
                break
            coming[entry.digest] = recent.slots[start + len(fresh)]
            fresh.append(entry)
        found.append(Found(twin, _NO_ONE, _NO_ONE, _NOTHING))
    if fresh:
        _search(store, rows_of(fresh), [one for one in found if one.twin < 0])
    return found


def twins(store: Store, entries: Sequence[Entry]) -> list[int]:
    """Slots of kept queries of the same pixels, -1 where there is none."""
    digests = [entry.digest for entry in entries]
    found = [store.recent.twin(digest) for digest in digests]
    wanted = np.array(digests, np.uint64)
    slots = store.index.of_digests(wanted)  # (N, PLACES)
    rows, columns = (store.digest.take(slots, mode="clip") == wanted[:, None]).nonzero()
    for row, slot in zip(rows.tolist(), slots[rows, columns].tolist(), strict=True):
        if slot != EMPTY and store.bucket[slot]:
            found[row] = slot
    return found


def _search(store: Store, rows: Rows, found: Sequence[Found]) -> None:
    """Fills in what is near."""
    recent, start, count = store.recent, len(store.recent), len(found)
    stop = start + count
    recent.enter(start, rows.embeddings, rows.clients, rows.sketches[0])
    candidates = store.index.candidates(rows)
    queries, columns, slots = candidates.queries, candidates.places, candidates.slots
    first = 1 + int(columns[: candidates.by_pixels].max(initial=0))  # columns of each view, then those of the recent
    columns[candidates.by_pixels :] += first
    settled = 1 + int(columns.max(initial=first))

    squares = np.full((2, count, settled + stop), np.inf)  # to the client's own, and to everyone's
    own, everyone = squares
    is_kept = store.bucket[slots] > 0
    is_own = store.client[slots] == rows.clients[queries]
    found_squares = np.where(is_kept, _squares(store, rows, queries, slots), np.inf)
    everyone[queries, columns] = found_squares
    own[queries, columns] = np.where(is_own, found_squares, np.inf)
    recent_squares = everyone[:, settled:]
    recent_squares[:] = recent.squares_to(start, stop)
    np.copyto(own[:, settled:], recent_squares, where=recent.clients[:stop] == rows.clients[:, None])
    own[rows.clients == ANONYMOUS] = np.inf

    every = np.empty((count, settled + stop), np.int64)
    every[queries, columns] = slots
    every[:, settled:] = recent.slots[:stop]
    shared = np.zeros((2, count, first), np.int64)
    if candidates.by_pixels:
        places = queries[: candidates.by_pixels], columns[: candidates.by_pixels]
        shared[:, *places] = _shared(store, rows.sketches[0], places[0], slots[: candidates.by_pixels])
        shared[np.isinf(squares[:, :, :first])] = 0
    distances = np.sqrt(squares, out=squares)
    distances /= UNIT
    nearest = _nearest(distances.reshape(2 * count, -1), shared.reshape(2 * count, -1), every)
    for number, one in enumerate(found):
        one.own, one.everyone, one.distances = nearest[number], nearest[count + number], distances[1, number, settled:]


def _nearest(distances: Float64s, shared: Integers, slots: Slots) -> list[Near]:
    """Of each row of distances, those at the front with so many shared keys; rows of slots are used in turn."""
    rows = np.arange(len(distances))
    lines = rows % len(slots)
    by_embedding, by_pixels = distances.argmin(axis=1), shared.argmax(axis=1)
    return [
        Near(
            by_pixels=near[0] if near[1] else -1,
            matches=near[1],
            pixel_distance=near[2],
            by_embedding=near[3] if near[4] < np.inf else -1,
            distance=near[4],
        )
        for near in zip(
            slots[lines, by_pixels].tolist(),
            shared[rows, by_pixels].tolist(),
            distances[rows, by_pixels].tolist(),
            slots[lines, by_embedding].tolist(),
            distances[rows, by_embedding].tolist(),
            strict=True,
        )
    ]


def _squares(store: Store, rows: Rows, queries: Slots, slots: Slots) -> Float64s:
    """(F,) squared distances of embeddings, in units."""
    squares = np.empty(len(slots))
    for start in range(0, len(slots), _ROWS):
        part = slice(start, start + _ROWS)
        differences = store.embeddings.take(slots[part], axis=0)
        differences -= rows.embeddings.take(queries[part], axis=0)
        numbers = differences.astype(np.float32)
        squares[part] = np.einsum("fd,fd->f", numbers, numbers)
    return squares


def _shared(store: Store, sketches: Keys, queries: Slots, slots: Slots) -> Integers:
    """(F,) keys that each slot's sketch shares with its query's."""
    both = np.concatenate([sketches[queries], store.sketches[0][slots]], axis=1)
    both.sort(axis=1)
    return np.asarray(((both[:, 1:] == both[:, :-1]) & (both[:, 1:] > 0)).sum(axis=1))
