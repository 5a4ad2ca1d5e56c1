"""Who has how many flags. Flags count, not queries: an attacker who keeps most of his unnoticed has no more of them."""

import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from service.history.types import NOBODY, Observation

__all__ = ["CLIENT", "MOST_WATCHED", "Ledger", "Step", "Watched", "Who", "component_of", "is_step_of", "who_of"]

MOST_WATCHED = 10_000
"""Clients and components with flags; one more pushes out the one that was flagged longest ago."""
CLIENT = -1

Who: TypeAlias = tuple[str, int]
"""A client's key and `CLIENT`; or `NOBODY` and a component of everyone's queries: against it count flags of queries
that nobody vouches for, and of all others that are flagged for what everyone's queries say."""


def who_of(client: str, observation: Observation) -> Who:
    """Whom a flag counts against."""
    if client != NOBODY:
        return client, CLIENT
    return NOBODY, CLIENT if observation.everyone is None else observation.everyone.number


def component_of(observation: Observation, level: float) -> Who | None:
    """The component against which a client's flag counts besides; None where only his own queries speak against it."""
    everyone = observation.everyone
    return None if everyone is None or everyone.p_value > level else (NOBODY, everyone.number)


def is_step_of(observation: Observation, level: float) -> bool:
    """Whether a query is itself a step of what everyone's queries are flagged for, and not a harmless one near it."""
    everyone = observation.everyone
    return everyone is not None and everyone.p_value <= level and everyone.added > 0


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


class _Count:
    """Of one client or component."""

    __slots__ = ("flags", "name", "observation", "since", "times")

    def __init__(self, enough: int, observation: Observation, now: float) -> None:
        self.flags = 0
        self.name = ""
        self.observation = observation
        self.since = now
        self.times: deque[float] = deque(maxlen=enough)

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

    def note(self, who: Who, observation: Observation, now: float, *, name: str = "") -> Step:
        """Counts a flag.

        Args:
            now: Unix time.
            name: of the client, where it is known.
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
            count.times.append(now)
            count.flags += 1
            count.observation = observation
            count.name = name or count.name
            if count.is_full(now - self._window_s) and not had_enough:
                return Step.ENOUGH
            return Step.FIRST if count.flags == 1 else Step.ONE_MORE

    def has_enough(self, who: Who, now: float) -> bool:
        """Whether there are too many flags within the window."""
        count = self._counts.get(who)  # of one operation, so without the lock
        if count is None:
            return False
        with self._lock:
            return count.is_full(now - self._window_s)

    def forgive(self, client: str) -> int:
        """Forgets the flags of a client's key, or those of all components by `NOBODY`; says how many that were."""
        with self._lock:
            found = [who for who in self._counts if who[0] == client]
            return sum(self._counts.pop(who).flags for who in found)

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
                )
                for who, count in reversed(self._counts.items())
            ]

    def _expire(self, now: float) -> None:
        while self._counts:
            oldest = next(iter(self._counts))
            if self._counts[oldest].times[-1] >= now - self._window_s:
                return
            del self._counts[oldest]
