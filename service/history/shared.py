"""One history of several processes, through a stream in Redis.

Each process has a whole history of its own, a replica. What is kept of a query is appended to the stream, sealed; then
all entries that others appended before are applied to the replica, and the query after them. So all replicas apply the
same entries in the same order, and each says of a query what one history of all queries would. Exact repeats are
counted where they come and shared with nobody.

Without Redis the replica goes on alone. What it takes meanwhile is appended when Redis is back, up to `OUTBOX` entries.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from operator import methodcaller

from service.history.entries import Entry
from service.history.history import History
from service.history.link import START, Id, Item, Link, LinkLost
from service.history.records import Record, packed, unpacked
from service.history.sealing import Seal
from service.history.types import Listener, Observation, Query

__all__ = ["SharedHistory"]

PIECE = 64
"""Entries read at once: what a query may have to wait for, while many are caught up with."""
PAUSE_S = 0.001
"""Between two pieces, so that a query comes in between."""
POLL_S = 0.1
"""How often a process without queries reads what others appended."""
TEND_S = 10.0
"""How often Redis is asked for its time, and the stream is trimmed."""
START_S = 1.0
"""For how long the first query waits to have caught up; what is left then is caught up with beside the next."""
LEAST_WAIT_S, MOST_WAIT_S = 0.1, 5.0
"""Between attempts to come back; doubled each time, until Redis was there for the longer one."""
OUTBOX = 4096
"""Entries kept for the others while Redis is away; then the oldest are dropped."""
UNHEARD = 10_000
"""Observations of others, and who they forgave, that are kept until somebody listens."""
LATE_S = 600.0
"""By which a record and its place in the stream may differ: none can be taken down and played again later."""

_log = logging.getLogger(__name__)


class SharedHistory:
    """The same as `History`, which each of several processes has a replica of.

    Used from one thread, too; a thread of its own follows the others and comes back to Redis. A call waits for Redis
    once, and no longer than the time-out; after that the replica is asked alone until Redis is back. The time of a
    query is that of Redis's clock, which each process asks for now and then, so that their own need not agree.
    """

    is_shared = True

    def __init__(self, replica: History, link: Link, *, seal: Seal, dimensions: int) -> None:
        """Takes an empty history, and begins to catch up with the others.

        Args:
            seal: under a key that all processes have.
            dimensions: of the embeddings.
        """
        self._replica, self._link, self._seal, self._dimensions = replica, link, seal, dimensions
        self._sender = random.SystemRandom().getrandbits(64)
        self._lock = threading.Lock()
        """Of the replica, `_seen`, `_outbox` and `_listener`; held while Redis is asked for a query."""
        self._seen: Id = START
        self._outbox: deque[Entry | int] = deque(maxlen=OUTBOX)
        self._listener: Listener | None = None
        self._unheard: deque[Callable[[Listener], None]] = deque(maxlen=UNHEARD)
        self._ahead = time.time() - time.monotonic()
        """Redis's clock less this machine's monotonic one."""
        self._is_up = False
        self._reason = "Redis was not asked yet"
        self._wait_s = LEAST_WAIT_S
        self._retry_at = self._up_since = 0.0
        self._tended = self._read = -TEND_S
        self.losses = 0
        """How often Redis was lost, or not there when it was tried again."""
        self.skipped = 0
        """Entries of the stream that were none of ours, or too late."""
        self.unsent = 0
        """Entries that were never shared, since too many waited for Redis."""
        self._told = (0, 0)
        self._stop, self._has_begun = threading.Event(), threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="advsentry-history", daemon=True)
        self._keeper.start()

    def __len__(self) -> int:
        return len(self._replica)

    @property
    def nbytes(self) -> int:
        """What the replica holds."""
        with self._lock:
            return self._replica.nbytes

    @property
    def room(self) -> int:
        """As of `History`; of the replica, which takes what others append, too."""
        return self._replica.room

    @property
    def is_degraded(self) -> bool:
        """Whether the replica is asked alone."""
        return not self._is_up

    @property
    def degraded_reason(self) -> str:
        """Why, in words without addresses; empty when it is not."""
        return "" if self._is_up else self._reason

    def observe(self, query: Query) -> Observation:
        """Compares a query with those of all processes before it, and keeps it."""
        return self.observe_all([query])[0]

    def observe_all(self, queries: Sequence[Query]) -> list[Observation]:
        """The same of one or more images of one shape, each compared with those before it."""
        self._begin()
        with self._lock:
            now = self._now()
            entries = self._replica.keyed([replace(query, now=now) for query in queries])
            found = [self._replica.repeated(entry) for entry in entries]
            new = [entry for entry, repeat in zip(entries, found, strict=True) if repeat is None]
            if new:
                self._share(new, now)
            told = iter(self._replica.apply(new))
        return [next(told) if repeat is None else repeat for repeat in found]

    def number(self, client: str) -> int:
        """As `History.number`; the same in all processes."""
        return self._replica.number(client)

    def listen(self, listener: Listener) -> None:
        """Tells of what other processes observed, also before this one began, as far as it is kept."""
        with self._lock:
            self._listener = listener
            while self._unheard:
                self._unheard.popleft()(listener)

    def forgive(self, client: str) -> set[int]:
        """As `History.forgive`, in all processes."""
        return self.forgive_number(self._replica.number(client))

    def forgive_number(self, number: int) -> set[int]:
        """The same of a client as `number` gives it."""
        self._begin()
        with self._lock:
            self._share([number], self._now())
            return self._replica.forgive_number(number)

    def leave(self) -> None:
        """Leaves Redis; the replica can still be asked."""
        self._stop.set()
        self._keeper.join()
        self._reason = "the history is closed"
        self._link.close()

    def close(self) -> None:
        """Leaves Redis, and gives the memory back; it cannot be asked any more."""
        self.leave()
        self._outbox.clear()
        self._replica.close()

    def _begin(self) -> None:
        if not self._has_begun.wait(START_S):
            self._has_begun.set()

    def _now(self) -> float:
        return time.monotonic() + self._ahead

    def _share(self, new: Sequence[Entry | int], now: float) -> None:
        """Appends what is new and applies what others appended before it."""
        if not self._is_up:
            self._keep_back(new)
            return
        try:
            found, ids = self._link.append(self._sealed(new, now), after=self._seen, count=PIECE)
        except LinkLost as lost:
            self._lose(str(lost))
            self._keep_back(new)
            return
        if ids[0] <= self._seen:  # a stream begun anew by a clock that is behind
            self._seen = START
            return
        try:
            self._take(found)
            while len(found) == PIECE:
                found = self._link.read(self._seen, count=PIECE, before=ids[0])
                self._take(found)
        except LinkLost as lost:
            self._lose(str(lost))
        else:
            self._seen, self._read = ids[-1], time.monotonic()

    def _keep_back(self, new: Sequence[Entry | int]) -> None:
        self.unsent += max(0, len(self._outbox) + len(new) - OUTBOX)
        self._outbox.extend(new)

    def _sealed(self, new: Iterable[Entry | int], now: float) -> list[bytes]:
        return [self._seal.sealed(packed(Record(self._sender, now, what))) for what in new]

    def _take(self, items: Sequence[Item]) -> None:
        """Applies what others appended."""
        entries = list[Entry]()
        for (millis, number), content in items:
            self._seen = (millis, number)
            what = self._opened(content, millis / 1000)
            if isinstance(what, Entry):
                entries.append(what)
            elif what is not None:
                self._apply(entries)
                entries.clear()
                components = self._replica.forgive_number(what)
                self._say(methodcaller("forgave", what, components))
        self._apply(entries)

    def _apply(self, entries: Sequence[Entry]) -> None:
        behind = time.time() - self._now()
        for entry, seen in zip(entries, self._replica.apply(entries), strict=True):
            found = seen.everyone
            if seen.p_value == 1.0 and (found is None or not (found.is_new or found.absorbed)):
                continue
            self._say(methodcaller("saw", entry.client, seen, entry.now + behind))

    def _say(self, what: Callable[[Listener], None]) -> None:
        if self._listener is None:
            self._unheard.append(what)
        else:
            what(self._listener)

    def _opened(self, content: bytes, taken: float) -> Entry | int | None:
        """What a record that Redis took at a time says; None of one's own, and of what is none."""
        try:
            record = unpacked(self._seal.opened(content), self._dimensions)
        except ValueError:
            self.skipped += 1
            return None
        if record.sender == self._sender:
            return None
        if abs(taken - record.sent) > LATE_S:
            self.skipped += 1
            return None
        return record.what

    def _lose(self, reason: str) -> None:
        """Goes on alone, and says when Redis is tried again: ever later, unless it was there for a while."""
        now = time.monotonic()
        if self._is_up and now - self._up_since > MOST_WAIT_S:
            self._wait_s = LEAST_WAIT_S
        self._retry_at = now + self._wait_s * random.uniform(0.5, 1.0)
        self._wait_s = min(MOST_WAIT_S, 2 * self._wait_s)
        self.losses += 1
        self._reason, self._is_up = reason, False
        self._link.close()

    def _keep(self) -> None:
        """The thread: follows the stream, or comes back to it."""
        wait_s = 0.0
        try:
            while not self._stop.wait(wait_s):
                try:
                    if self._is_up:
                        wait_s = self._follow()
                    elif (wait_s := self._retry_at - time.monotonic()) <= 0:
                        wait_s = self._come_back()
                except LinkLost as lost:
                    with self._lock:
                        self._lose(str(lost))
                    wait_s = 0.0
                self._has_begun.set()
        finally:
            self._reason, self._is_up = "nothing follows the other processes any more", False

    def _follow(self) -> float:
        """Reads a piece, unless a query just did; gives how long to wait."""
        now = time.monotonic()
        if now >= self._tended + TEND_S:
            kept_s, self._ahead = self._replica.bounds.kept_s, self._link.seconds() - time.monotonic()
            self._link.tend(oldest=self._now() - kept_s, lasts_s=kept_s)
            self._tended = now
            self._tell()
        with self._lock:
            if not self._is_up or now < self._read + POLL_S:
                return POLL_S
            found = self._link.read(self._seen, count=PIECE)
            self._take(found)
            self._read = time.monotonic()
        return POLL_S if len(found) < PIECE else PAUSE_S

    def _tell(self) -> None:
        """Logs what was not shared since the last time."""
        counts = (self.skipped, self.unsent)
        skipped, unsent = (count - told for count, told in zip(counts, self._told, strict=True))
        self._told = counts
        if skipped:
            _log.warning(
                "query history: skipped %d entries of the stream that nobody with the secret sent now", skipped
            )
        if unsent:
            _log.warning("query history: %d entries were never shared, while Redis was away", unsent)

    def _come_back(self) -> float:
        """Takes what others appended meanwhile, appends what they have not got, and shares again."""
        self._ahead = self._link.seconds() - time.monotonic()
        if self._link.last() < self._seen:
            self._seen = START
        self._reason = "catching up with the other processes"
        while not self._stop.wait(PAUSE_S):
            found = self._link.read(self._seen, count=PIECE)
            with self._lock:
                self._take(found)
                if len(found) == PIECE:
                    continue
                if not self._outbox:
                    self._up_since, self._is_up = time.monotonic(), True
                    break
                waiting = list(islice(self._outbox, PIECE))
                self._link.append(self._sealed(waiting, self._now()), after=self._seen, count=1)
                for _ in waiting:
                    self._outbox.popleft()
        return POLL_S
