"""The one entry to the query history."""

import hashlib
import os
from collections.abc import Sequence

import numpy as np

from service.history.boundary import Beside, Boundary
from service.history.bounds import Bounds
from service.history.calibration import Calibration
from service.history.components import Components, Member
from service.history.entries import ADVERSARIAL, ANONYMOUS, FLAT, NEAR, STEP, Entry, Near, shortened
from service.history.evidence import LEAST_EVENTS, LEAST_SIZE, STRAY, Edges, Join
from service.history.fingerprints import KEY_BYTES, SKETCH, Fingerprints, digest
from service.history.projections import Projections
from service.history.recent import RECENT
from service.history.search import Found, compared, twins
from service.history.store import Store
from service.history.types import NOBODY, Component, Integers, Keys, Listener, Observation, Query, Slots

__all__ = ["History"]

_NO_SKETCH: Keys = np.zeros(SKETCH, np.uint32)


class History:
    """The queries of late of one process.

    Used from one thread, or from one event loop; it never waits and never reads a clock. A query is compared with those
    before it, put among them, and judged by the component that it joins. Memory is taken as queries are kept, and given
    back by `close`.

    That is two steps: `keyed` makes of queries what is kept of them and changes nothing, `apply` compares and keeps.
    Histories of one secret, calibration and bounds that apply the same entries in the same order are equal.
    """

    is_shared = False
    is_degraded = False
    """Never: it shares nothing with others that may be away."""
    degraded_reason = ""

    def __init__(
        self,
        calibration: Calibration,
        *,
        dimensions: int,
        bounds: Bounds | None = None,
        secret: bytes | None = None,
    ) -> None:
        """Takes what is known of benign traffic.

        Args:
            dimensions: of the embeddings.
            bounds: what is kept; None for the default.
            secret: of `KEY_BYTES` bytes, from which all keys follow; None for one of the operating system's.

        Raises:
            SetupError: the bounds leave too little room.
        """
        self.calibration = calibration
        self.bounds = bounds or Bounds()
        self.secret = os.urandom(KEY_BYTES) if secret is None else secret
        seed = int.from_bytes(self._derived("draws"), "little")
        lines = np.random.default_rng(int.from_bytes(self._derived("lines"), "little"))
        self.radius = calibration.edges.radius_among(self.bounds.capacity(dimensions))
        """Within which everyone's queries are near; that of a full store, since cells are of one width."""
        self.projections = Projections(dimensions, self.radius, lines)
        self.own_projections = Projections(dimensions, calibration.edges.radius, lines)
        keys = self.projections.own_keys, self.own_projections.own_keys
        self.store = Store(
            self.bounds, dimensions, np.random.default_rng(seed), lambda rows: (keys[0](rows), keys[1](rows))
        )
        self.own = Components(self.store.capacity + RECENT, self._derived("own margins"))
        self.everyone = Components(self.store.capacity + RECENT, self._derived("everyone's margins"))
        self.boundary = Boundary(self.store.capacity + RECENT, self.store.embeddings_of)
        self.clock = -np.inf
        """The latest time of an entry."""
        self.generations: tuple[int, ...] = ()
        """Of the fingerprints' secrets whose sketches are kept: that in use, and for a window's time the next."""
        self._fingerprints: dict[int, Fingerprints] = {}
        self._digest_key = self._derived("digests")
        self._client_key = self._derived("clients")

    def __len__(self) -> int:
        return len(self.store)

    @property
    def room(self) -> int:
        """How many more queries are kept before the index takes them over; so many at once cost least."""
        return RECENT - len(self.store.recent)

    @property
    def nbytes(self) -> int:
        """What it holds."""
        return self.store.nbytes + self.own.nbytes + self.everyone.nbytes + self.boundary.nbytes

    def observe(self, query: Query) -> Observation:
        """Compares a query with those before it and keeps it."""
        return self.observe_all([query])[0]

    def observe_all(self, queries: Sequence[Query]) -> list[Observation]:
        """The same of several images of one shape, each compared with those before it; cheaper than one by one."""
        return self.apply(self.keyed(queries))

    def keyed(self, queries: Sequence[Query]) -> list[Entry]:
        """What is kept of one or more images of one shape, under this history's secrets."""
        images = np.stack([query.image for query in queries])
        generations = self._generations(queries)
        sketches = [self._fingerprints_of(number).sketches(images) for number in generations]  # each (N, SKETCH)
        embeddings = shortened(np.stack([query.embedding for query in queries]))
        cells, own_cells = self.projections.keys(embeddings), self.own_projections.keys(embeddings)
        return [
            Entry(
                client=self.number(query.client),
                digest=digest(query.image, self._digest_key),
                generation=generations[0],
                sketches=tuple(generation[place] for generation in sketches),
                cells=cells[place],
                own_cells=own_cells[place],
                embedding=embeddings[place],
                label=query.label,
                margin=query.margin,
                marks=self._marks(query, is_flat=not sketches[0][place, -1]),
                now=query.now,
            )
            for place, query in enumerate(queries)
        ]

    def apply(self, entries: Sequence[Entry]) -> list[Observation]:
        """Compares entries with those before them and keeps them; what `keyed` of an equal history gave."""
        told = list[Observation]()
        while len(told) < len(entries):
            rest = entries[len(told) :]
            self._turn(rest[0].now)
            self._tidy(rest[0].now)
            told += self._applied(rest[: self._alike(rest)])
        return told

    def _alike(self, entries: Sequence[Entry]) -> int:
        """How many at the front are of one bucket of the clock and of the same secrets."""
        for number, entry in enumerate(entries):
            is_turning = self.bounds.generations(max(self.clock, entry.now)) != self.generations
            if is_turning or self.store.is_later(entry.now):
                return number
        return len(entries)

    def _applied(self, entries: Sequence[Entry]) -> list[Observation]:
        """Those at the front that can be looked for together.

        That is until the recent queries are settled, or one is pushed out that was found near a later one.
        """
        told = list[Observation]()
        for entry in entries:
            self._align(entry)
        found = compared(self.store, entries)
        last: dict[int, int] = {}  # for each slot, the last query that it was found near
        for number, (entry, one) in enumerate(zip(entries, found, strict=False)):
            self.clock = max(self.clock, entry.now)
            if one.twin >= 0:
                told.append(self._repeat(entry, one.twin))
                continue
            told.append(self._kept(entry, one))
            pushed = self.store.push_out(entry.client, self._sizes)
            if pushed >= 0:
                self._forget(np.array([pushed]), is_expired=False)
                last = last or {slot: at for at, other in enumerate(found) for slot in other.slots}
                if last.get(pushed, number) > number:
                    break
        if len(self.store.recent) == RECENT:
            self.store.settle()
        return told

    def repeated(self, entry: Entry) -> Observation | None:
        """Counts an entry whose pixels are kept already; None where they are not, or will have expired at its time."""
        twin = twins(self.store, [entry])[0]
        return self._repeat(entry, twin) if twin >= 0 and self.store.lasts(twin, entry.now) else None

    def _repeat(self, entry: Entry, twin: int) -> Observation:
        step = self.everyone.number(twin) if self._marks_of(twin) & STEP else -1
        return Observation(
            is_repeat=True,
            repeats=self.store.repeated(twin),
            is_low_entropy=entry.is_low_entropy,
            own=None,
            everyone=None,
            statistic=0.0,
            p_value=1.0,
            step=step,
        )

    def close(self) -> None:
        """Gives its memory back at once; it cannot be asked any more."""
        for name in ("store", "own", "everyone", "boundary", "projections", "own_projections"):
            vars(self).pop(name, None)

    def listen(self, listener: Listener) -> None:
        """Tells nobody anything: this history is of one process."""

    def forgive(self, client: str) -> set[int]:
        """Drops what speaks against the components that a client's queries are in; they stay kept.

        Returns:
            The numbers of those of everyone's.
        """
        return self.forgive_number(self.number(client))

    def forgive_number(self, number: int) -> set[int]:
        """The same of a client as `number` gives it."""
        slots = self.store.slots_of(number)
        self.own.forgive(slots)
        return self.everyone.forgive(slots)

    def _kept(self, entry: Entry, found: Found) -> Observation:
        """Keeps a query and joins it to what is near."""
        kept, kept_own = len(self.store), self.store.count(entry.client)
        before = self.boundary.before(entry)
        slot, sharing = self.store.put(entry)
        own, everyone = found.own, found.everyone
        if sharing is not None:
            own, everyone = found.with_recent(sharing, self.store.recent, entry.client)
        self.boundary.put(entry, slot)
        is_low_entropy = entry.is_low_entropy
        told = (
            self._joined(self.own, own, before, slot, entry, kept_own, is_low_entropy),
            self._joined(self.everyone, everyone, [], slot, entry, kept, is_low_entropy),
        )
        is_step = any(one is not None and one.added > 0 for one in told)
        entry.marks = (entry.marks & ~STEP) | (STEP * is_step)
        statistic = 0.0 if is_low_entropy else max((one.statistic for one in told if one), default=0.0)
        return Observation(
            is_repeat=False,
            repeats=0,
            is_low_entropy=is_low_entropy,
            own=told[0],
            everyone=told[1],
            statistic=statistic,
            p_value=self.calibration.p_value(statistic) if statistic else 1.0,
        )

    def _joined(
        self,
        components: Components,
        near: Near,
        before: Sequence[Beside],
        slot: int,
        entry: Entry,
        kept: int,
        is_low_entropy: bool,
    ) -> Component | None:
        """Joins a query to its neighbours in a scope of so many kept queries."""
        edges, is_own = self.calibration.edges, components is self.own
        matches = near.matches if near.matches >= edges.matches else 0
        if not is_own and near.pixel_distance > edges.beside:
            matches = 0  # noise on one background is of many images, and one such link would make them one component
        is_close = near.distance <= (edges.radius_among(kept) if is_own else self.radius)
        if not (matches or is_close or before):
            return None
        beside = _beside(before, components, edges) if before else None
        others = {near.by_pixels} if matches else set()
        if is_close:
            others.add(near.by_embedding)
        if beside:
            others.add(beside.slot)
        if not others:
            return None
        member, neighbours = _member(entry), {other: self._member(other) for other in others}
        numbers = {number for other in others if (number := components.number(other)) >= 0}
        root = components.joined(list(neighbours.items()))
        join = Join(
            matches=matches,
            distance=min(
                near.distance if is_close else np.inf,
                near.pixel_distance if matches else np.inf,
                beside.distance if beside else np.inf,
            ),
            is_label_flip=any(member.label != other.label for other in neighbours.values()),
            is_verdict_flip=any(member.is_adversarial != other.is_adversarial for other in neighbours.values()),
            is_near=member.is_near,
            rank=components.ranked(root, entry.margin),
            size=max(0, components.columns["size"][root] - kept // STRAY) if is_own else 0,
        )
        components.add(slot, root, member)
        if matches:
            components.link(root)
        added = 0.0
        if not is_low_entropy:
            added = self._added(components, root, join, max(1.0, kept / edges.entries))
            components.weigh(root, added)
        return self._told(components, root, member.now, added, numbers)

    def _added(self, components: Components, root: int, join: Join, crowd: float) -> float:
        """What a join adds to the evidence of its component."""
        return self.calibration.rates.adds(join, crowd=crowd)

    def _told(self, components: Components, root: int, now: float, added: float, before: set[int]) -> Component:
        columns = components.columns
        evidence, size = columns["evidence"][root], columns["size"][root]
        judged = evidence if size >= LEAST_SIZE and columns["raised"][root] >= LEAST_EVENTS else 0.0
        return Component(
            size=size,
            per_s=size / max(1.0, now - columns["began"][root]),
            pixel_links=columns["pixel_links"][root],
            label_flips=columns["label_flips"][root],
            verdict_flips=columns["verdict_flips"][root],
            near_boundary=columns["near_boundary"][root],
            clients=components.clients(root),
            statistic=judged,
            added=added,
            number=root,
            absorbed=tuple(sorted(before - {root})),
            is_new=not before,
        )

    def _member(self, slot: int) -> Member:
        store = self.store
        place = store.recent.place(slot)
        if place >= 0:
            return _member(store.recent.entries[place])
        marks = self._marks_of(slot)
        return Member(
            client=int(store.client[slot]),
            label=int(store.label[slot]),
            is_adversarial=bool(marks & ADVERSARIAL),
            is_near=bool(marks & NEAR),
            now=float(store.since[slot]),
        )

    def _marks_of(self, slot: int) -> int:
        place = self.store.recent.place(slot)
        return self.store.recent.entries[place].marks if place >= 0 else int(self.store.marks[slot])

    def _tidy(self, now: float) -> None:
        """Forgets what has expired."""
        if not self.store.is_later(now):
            return
        self.store.settle()
        expired = self.store.advance(now)
        if len(expired):
            self.own.rebuild()
            self.everyone.rebuild()
            self._forget(expired, is_expired=True)

    def _forget(self, slots: Slots, *, is_expired: bool) -> None:
        self.boundary.forget(slots)
        self.own.forget(slots, is_expired=is_expired)
        self.everyone.forget(slots, is_expired=is_expired)

    def _sizes(self, slots: Slots) -> Integers:
        """How many queries hang together with each, in the scope where there are more."""
        return np.maximum(self.own.sizes(slots), self.everyone.sizes(slots))

    def _turn(self, now: float) -> None:
        """Replaces the fingerprints' secret when it is time; a window before, sketches under both are kept."""
        self.clock = max(self.clock, now)
        wanted = self.bounds.generations(self.clock)
        if wanted == self.generations:
            return
        self.store.settle()
        if len(self.generations) == 2 and self.generations[0] != wanted[0]:
            self.store.end_last()
        if len(wanted) > len(self.store.sketches):
            self.store.begin_next()
        self.generations = wanted
        self._fingerprints = {number: made for number, made in self._fingerprints.items() if number >= wanted[0]}

    def _align(self, entry: Entry) -> None:
        """Gives an entry sketches under the secrets in use; it may have been made just before one was replaced."""
        if entry.generation == self.generations[0] and len(entry.sketches) == len(self.generations):
            return
        made = dict(enumerate(entry.sketches, start=entry.generation))
        entry.sketches = tuple(made.get(number, _NO_SKETCH) for number in self.generations)
        entry.generation = self.generations[0]

    def _fingerprints_of(self, generation: int) -> Fingerprints:
        """Under one of the secrets that follow each other."""
        if generation not in self._fingerprints:
            self._fingerprints[generation] = Fingerprints(self._derived(f"pixels {generation}"))
        return self._fingerprints[generation]

    def _generations(self, queries: Sequence[Query]) -> range:
        """Of the secrets in use while these queries came."""
        first, last = (self.bounds.generations(max(self.clock, query.now)) for query in (queries[0], queries[-1]))
        return range(max(first[0], last[0] - 1), last[-1] + 1)

    def _marks(self, query: Query, *, is_flat: bool) -> int:
        edges = self.calibration.edges
        is_adversarial = query.p_value <= edges.alpha
        is_near = query.margin <= edges.margin or query.p_value <= edges.p_value
        return ADVERSARIAL * is_adversarial + NEAR * is_near + FLAT * is_flat

    def number(self, client: str) -> int:
        """A keyed hash of a client's name; `ANONYMOUS` of nobody's."""
        if client == NOBODY:
            return ANONYMOUS
        made = hashlib.blake2b(client.encode(), key=self._client_key, digest_size=8).digest()
        return int.from_bytes(made, "little") or 1

    def _derived(self, purpose: str) -> bytes:
        return hashlib.blake2b(purpose.encode(), key=self.secret, digest_size=KEY_BYTES).digest()


def _beside(before: Sequence[Beside], components: Components, edges: Edges) -> Beside | None:
    """The first near enough, which hangs on the evidence of the component that it is in."""
    farthest = edges.farthest_beside
    for one in before:
        if one.distance <= farthest and one.distance <= edges.beside_of(components.evidence(one.slot)):
            return one
    return None


def _member(entry: Entry) -> Member:
    return Member(
        client=entry.client,
        label=entry.label,
        is_adversarial=bool(entry.marks & ADVERSARIAL),
        is_near=bool(entry.marks & NEAR),
        now=entry.now,
    )
