"""Who has how many flags. Flags count, not queries: an attacker who keeps most of his unnoticed has no more of them."""

import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import TypeAlias

from service.history.types import NOBODY, Observation

__all__ = ["CLIENT", "MOST_WATCHED", "Ledger", "Step", "Watched", "Who", "search_of", "step_of", "who_of"]

MOST_WATCHED = 10_000
"""Clients and components with flags; one more pushes out the one that was flagged longest ago."""
MOST_BY = 8
"""Clients that a component remembers to have flags in it."""
CLIENT = -1

Who: TypeAlias = tuple[str, int]
"""A client's key and `CLIENT`; or `NOBODY` and a component of everyone's queries: against it count the flags of
all queries in it, whoever sent them."""


def who_of(client: str, observation: Observation) -> Who:
    """Whom a flag counts against."""
    if client != NOBODY:
        return client, CLIENT
    return NOBODY, CLIENT if observation.everyone is None else observation.everyone.number


def search_of(observation: Observation) -> Who | None:
    """The component of everyone's queries against which a client's flag counts besides; None where it is in none."""
    return None if observation.everyone is None else (NOBODY, observation.everyone.number)


def step_of(observation: Observation) -> Who | None:
    """The component of everyone's that a query is itself a step of a search in, and not a harmless query near it.

    A step adds to what speaks against its client's queries or everyone's; so does what it repeats, or who is refused
    would send it again. None where it is none.
    """
    if observation.is_repeat:
        return (NOBODY, observation.step) if observation.step >= 0 else None
    adds = any(scope is not None and scope.added > 0 for scope in (observation.own, observation.everyone))
    return search_of(observation) if adds else None


class Step(Enum):
    """What a flag changed."""

    FIRST = "first"
    ONE_MORE = "one more"
    ENOUGH = "enough"
    """From this one on there are too many."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """One who has flags."""

    who: Who
    flags: int
    since: float
    """Unix time of the first."""
    last: float
    has_enough: bool
    observation: Observation
    """The last that was flagged."""
    name: str
    """Of the client, for people; empty of a component, and while no query of the client came to this process."""
    by: frozenset[str]
    """Keys of the clients whose flags count against a component, `MOST_BY` at most; empty of a client."""

    @property
    def is_search_of_clients(self) -> bool:
        """Whether it is a component, and all its flags are those of clients, who are watched themselves."""
        return self.who[0] == NOBODY and NOBODY not in self.by


class _Count:
    """Of one client or component."""

    __slots__ = ("by", "flags", "name", "observation", "since", "times")

    def __init__(self, enough: int, observation: Observation, now: float) -> None:
        self.flags = 0
        self.name = ""
        self.by: set[str] = set()
        self.observation = observation
        self.since = now
        self.times: deque[float] = deque(maxlen=enough)

    def add(self, time: float) -> None:
        """Keeps the latest, in order: what other processes saw may come late."""
        if not self.times or time >= self.times[-1]:
            self.times.append(time)
        else:
            self.times = deque(sorted([*self.times, time]), self.times.maxlen)

    def is_full(self, after: float) -> bool:
        return len(self.times) == self.times.maxlen and self.times[0] >= after


class Ledger:
    """Flags within a window of time, of a bounded number of clients; used from any thread."""

    def __init__(
        self,
        *,
        flags: int,
        window_s: float,
        late_flags: int = 0,
        most: int = MOST_WATCHED,
        draw: Callable[[int], int] = secrets.randbelow,
    ) -> None:
        """Begins with nobody.

        Args:
            flags: with which one has too many.
            late_flags: how many more it takes at most; drawn for each, so that nobody learns of which query it was.
            draw: a number below its argument.
        """
        self._flags, self._late, self._window_s = flags, late_flags, window_s
        self._most, self._draw = most, draw
        self._counts: OrderedDict[Who, _Count] = OrderedDict()  # flagged longest ago first
        self._lock = threading.Lock()

    def note(self, who: Who, observation: Observation, now: float, *, name: str = "", by: str | None = None) -> Step:
        """Counts a flag.

        Args:
            now: Unix time.
            name: of the client, where it is known.
            by: the key of the client whose flag it is, where `who` is a component.
        """
        with self._lock:
            self._expire(now)
            count = self._counts.get(who)
            if count is None:
                if len(self._counts) >= self._most:
                    self._counts.popitem(last=False)
                enough = self._flags + self._draw(self._late + 1)
                count = self._counts[who] = _Count(enough, observation, now)
            self._counts.move_to_end(who)
            had_enough = count.is_full(now - self._window_s)
            count.add(now)
            count.flags += 1
            count.observation = observation
            count.name = name or count.name
            if by is not None and (by == NOBODY or len(count.by) < MOST_BY):
                count.by.add(by)
            if count.is_full(now - self._window_s) and not had_enough:
                return Step.ENOUGH
            return Step.FIRST if count.flags == 1 else Step.ONE_MORE

    def follow(self, observation: Observation) -> None:
        """Has flags against components of everyone's go with these, as they begin and become one."""
        found = observation.everyone
        if found is None or not (found.is_new or found.absorbed):
            return
        with self._lock:
            if found.is_new:
                self._counts.pop((NOBODY, found.number), None)
            for number in found.absorbed:
                if (gone := self._counts.pop((NOBODY, number), None)) is not None:
                    self._join((NOBODY, found.number), gone)

    def _join(self, who: Who, gone: _Count) -> None:
        kept = self._counts.get(who)
        if kept is None:
            self._counts[who] = gone
            return
        if gone.times[-1] > kept.times[-1]:
            kept.observation = gone.observation
        for time in gone.times:
            kept.add(time)
        kept.flags += gone.flags
        kept.since = min(kept.since, gone.since)
        kept.by |= set(islice(gone.by, max(0, MOST_BY - len(kept.by)))) | (gone.by & {NOBODY})

    def has_enough(self, who: Who, now: float) -> bool:
        """Whether there are too many flags within the window."""
        count = self._counts.get(who)  # of one operation, so without the lock
        if count is None:
            return False
        with self._lock:
            return count.is_full(now - self._window_s)

    def forgive(self, client: str, components: Iterable[int] = ()) -> int:
        """Forgets the flags of a client's key, or those of all components by `NOBODY`; says how many that were.

        With a client's go those of the components that he has flags in, since nothing speaks against these any more.

        Args:
            components: further ones, by number: those that his queries are in.
        """
        with self._lock:
            found = [who for who in self._counts if who[0] == client]
            flags = sum(self._counts.pop(who).flags for who in found)
            for who in [who for who, count in self._counts.items() if client in count.by]:
                del self._counts[who]
            for number in components:
                self._counts.pop((NOBODY, number), None)
            return flags

    def watched(self, now: float) -> list[Watched]:
        """All who have flags, those with the last one first."""
        with self._lock:
            self._expire(now)
            return [
                Watched(
                    who=who,
                    flags=count.flags,
                    since=count.since,
                    last=count.times[-1],
                    has_enough=count.is_full(now - self._window_s),
                    observation=count.observation,
                    name=count.name,
                    by=frozenset(count.by),
                )
                for who, count in reversed(self._counts.items())
                if count.times[-1] >= now - self._window_s
            ]

    def _expire(self, now: float) -> None:
        while self._counts:
            oldest = next(iter(self._counts))
            if self._counts[oldest].times[-1] >= now - self._window_s:
                return
            del self._counts[oldest]
