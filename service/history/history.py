"""The one entry to the query history."""

import hashlib
import os
from collections.abc import Sequence

import numpy as np

from service.history.bounds import Bounds
from service.history.calibration import Calibration
from service.history.components import Components, Member
from service.history.entries import ANONYMOUS, Entry, Near
from service.history.evidence import LEAST_EVENTS, LEAST_SIZE, Join
from service.history.fingerprints import KEY_BYTES, Fingerprints, digest
from service.history.projections import Projections
from service.history.store import Store
from service.history.types import NOBODY, Component, Keys, Observation, Query, Slots

__all__ = ["History"]

ADVERSARIAL, NEAR = 1, 2
"""Marks of an entry."""


class History:
    """The queries of late of one process.

    Used from one thread, or from one event loop; it never waits and never reads a clock. A query is compared with those
    before it, put among them, and judged by the component that it joins. All memory is taken at the start, but for the
    table of clients, and for a window's time while the fingerprints' secret is replaced.
    """

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
        self.store = Store(self.bounds, dimensions, np.random.default_rng(seed))
        self.own = Components(self.store.capacity)
        self.everyone = Components(self.store.capacity)
        lines = np.random.default_rng(int.from_bytes(self._derived("lines"), "little"))
        self.radius = calibration.edges.radius_among(self.store.capacity)
        """Within which everyone's queries are near; that of a full store, since cells are of one width."""
        self.projections = Projections(dimensions, self.radius, lines)
        self.own_projections = Projections(dimensions, calibration.edges.radius, lines)
        self.generation = 0
        """How often the fingerprints' secret was replaced."""
        self.since = self.next_since = -np.inf
        """Since when the secret in use is, and the one that follows."""
        self.fingerprints = [self.fingerprints_of(0)]
        self._digest_key = self._derived("digests")
        self._client_key = self._derived("clients")

    def __len__(self) -> int:
        return len(self.store)

    @property
    def nbytes(self) -> int:
        """What it holds."""
        return self.store.nbytes + self.own.nbytes + self.everyone.nbytes

    def observe(self, query: Query) -> Observation:
        """Compares a query with those before it and keeps it."""
        return self.observe_all([query])[0]

    def observe_all(self, queries: Sequence[Query]) -> list[Observation]:
        """The same of one or more images of one shape, each compared with those before it; cheaper than one by one."""
        self._turn(queries[-1].now)
        images = np.stack([query.image for query in queries])
        sketches = [fingerprints.sketches(images) for fingerprints in self.fingerprints]  # each (N, SKETCH)
        embeddings = np.stack([query.embedding for query in queries])
        cells, own_cells = self.projections.keys(embeddings), self.own_projections.keys(embeddings)
        return [
            self._observed(
                query, tuple(generation[number] for generation in sketches), cells[number], own_cells[number]
            )
            for number, query in enumerate(queries)
        ]

    def forgive(self, client: str) -> None:
        """Drops what speaks against the components that a client's queries are in; they stay kept."""
        slots = self.store.slots_of(self._number(client))
        self.own.forgive(slots)
        self.everyone.forgive(slots)

    def _observed(self, query: Query, sketches: tuple[Keys, ...], cells: Keys, own_cells: Keys) -> Observation:
        self._tidy(query.now)
        pixels = digest(query.image, self._digest_key)
        is_low_entropy = not sketches[0][-1]
        twin = self.store.twin(pixels)
        if twin >= 0:
            self.store.repeats[twin] += 1
            repeats = int(self.store.repeats[twin])
            return Observation(
                is_repeat=True,
                repeats=repeats,
                is_low_entropy=is_low_entropy,
                own=None,
                everyone=None,
                statistic=0.0,
                p_value=1.0,
            )
        edges = self.calibration.edges
        is_adversarial = query.p_value <= edges.alpha
        is_near = query.margin <= edges.margin or query.p_value <= edges.p_value
        entry = Entry(
            client=self._number(query.client),
            digest=pixels,
            sketches=sketches,
            cells=cells,
            own_cells=own_cells,
            embedding=query.embedding,
            label=query.label,
            marks=ADVERSARIAL * is_adversarial + NEAR * is_near,
            now=query.now,
        )
        scope = self.everyone if entry.client == ANONYMOUS else self.own
        pushed = self.store.make_room(entry.client, scope.sizes)
        self._forget(pushed, is_expired=False)
        own, everyone = self.store.nearest(entry)
        kept, kept_own = len(self.store), self.store.count(entry.client)
        slot = self.store.put(entry)
        member = _member(entry)
        told = (
            self._joined(self.own, own, slot, member, kept_own, is_low_entropy),
            self._joined(self.everyone, everyone, slot, member, kept, is_low_entropy),
        )
        statistic = 0.0 if is_low_entropy else max((one.statistic for one in told if one), default=0.0)
        return Observation(
            is_repeat=False,
            repeats=0,
            is_low_entropy=is_low_entropy,
            own=told[0],
            everyone=told[1],
            statistic=statistic,
            p_value=self.calibration.p_value(statistic),
        )

    def _joined(
        self, components: Components, near: Near, slot: int, member: Member, kept: int, is_low_entropy: bool
    ) -> Component | None:
        """Joins a query to its neighbours in a scope of so many kept queries."""
        edges = self.calibration.edges
        matches = near.matches if near.matches >= edges.matches else 0
        is_close = near.distance <= (self.radius if components is self.everyone else edges.radius_among(kept))
        others = {near.by_pixels} if matches else set()
        if is_close:
            others.add(near.by_embedding)
        if not others:
            return None
        root = components.joined([(other, self._kept(other)) for other in others])
        row = components.row(root)
        join = Join(
            matches=matches,
            distance=min(near.distance if is_close else np.inf, near.pixel_distance if matches else np.inf),
            is_label_flip=bool(row["label"] != member.label),
            is_verdict_flip=bool(row["is_adversarial"] != member.is_adversarial),
            is_near=member.is_near,
        )
        components.add(slot, root, member)
        row["pixel_links"] += matches > 0
        if not is_low_entropy:
            added = self._added(components, root, join, max(1.0, kept / edges.entries))
            row["evidence"] = max(0.0, row["evidence"] + added)
        return self._told(components, root, member.now)

    def _added(self, components: Components, root: int, join: Join, crowd: float) -> float:
        """What a join adds to the evidence of its component."""
        return self.calibration.rates.adds(join, crowd=crowd)

    def _told(self, components: Components, root: int, now: float) -> Component:
        row = components.row(root)
        evidence, size = float(row["evidence"]), int(row["size"])
        events = row["pixel_links"] + row["label_flips"] + row["verdict_flips"]
        judged = evidence if size >= LEAST_SIZE and events >= LEAST_EVENTS else 0.0
        return Component(
            size=size,
            per_s=size / max(1.0, now - float(row["began"])),
            pixel_links=int(row["pixel_links"]),
            label_flips=int(row["label_flips"]),
            verdict_flips=int(row["verdict_flips"]),
            near_boundary=int(row["near_boundary"]),
            clients=components.clients(root),
            statistic=judged,
        )

    def _kept(self, slot: int) -> Member:
        store = self.store
        marks = int(store.marks[slot])
        return Member(
            client=int(store.client[slot]),
            label=int(store.label[slot]),
            is_adversarial=bool(marks & ADVERSARIAL),
            is_near=bool(marks & NEAR),
            now=float(store.since[slot]),
        )

    def _tidy(self, now: float) -> None:
        if self.store.advance(now):
            self.own.rebuild()
            self.everyone.rebuild()
        self._forget(self.store.sweep(), is_expired=True)

    def _forget(self, slots: Slots, *, is_expired: bool) -> None:
        if len(slots):
            self.own.forget(slots, is_expired=is_expired)
            self.everyone.forget(slots, is_expired=is_expired)

    def _turn(self, now: float) -> None:
        """Replaces the fingerprints' secret when it is time; a window before, queries get sketches under both."""
        if self.since == -np.inf:
            self.since = now
        ends = self.since + self.bounds.rotate_s
        overlap = self.bounds.window_s * (1 + 1 / self.bounds.buckets)
        if len(self.fingerprints) == 1 and now >= ends - overlap:
            self.generation += 1
            self.fingerprints.append(self.fingerprints_of(self.generation))
            self.store.begin_next()
            self.next_since = now
        if len(self.fingerprints) == 2 and now >= self.next_since + overlap:
            del self.fingerprints[0]
            self.store.end_last()
            self.since = now

    def fingerprints_of(self, generation: int) -> Fingerprints:
        """Under one of the secrets that follow each other."""
        return Fingerprints(self._derived(f"pixels {generation}"))

    def _number(self, client: str) -> int:
        if client == NOBODY:
            return ANONYMOUS
        made = hashlib.blake2b(client.encode(), key=self._client_key, digest_size=8).digest()
        return int.from_bytes(made, "little") or 1

    def _derived(self, purpose: str) -> bytes:
        return hashlib.blake2b(purpose.encode(), key=self.secret, digest_size=KEY_BYTES).digest()


def _member(entry: Entry) -> Member:
    return Member(
        client=entry.client,
        label=entry.label,
        is_adversarial=bool(entry.marks & ADVERSARIAL),
        is_near=bool(entry.marks & NEAR),
        now=entry.now,
    )
