"""What callers see of the query history, and what becomes of those whose queries belong to a search."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from service.detection.types import Scored
from service.detection.verdict import RevealMode
from service.errors import PermissionRefused, Unavailable
from service.history import entries
from service.history.types import NOBODY, Observation
from service.metrics import Metrics
from service.rpc.call import ANONYMOUS, Caller, is_trusted
from service.rpc.watch import NOTHING, Noticed
from service.watching.ledger import CLIENT, Ledger, Step, Watched, search_of, step_of, who_of
from service.watching.observer import Group, Observer
from service.watching.telling import Teller
from service.watching.types import Kept, Mode, Rules

__all__ = ["HistoryWatch"]

SAVE_S = 10.0
"""For the history's thread to end with a snapshot."""
CLOSE_S = 1.0
"""Without one."""
FORGIVE_S = 10.0


@dataclass(frozen=True, slots=True)
class _Found:
    """What was seen of a group."""

    p_values: Sequence[float | None]
    """(N,); None of those that are not flagged."""
    has_enough: bool
    """Whether an image is a step of a search, by whoever, that has too many flags."""


class HistoryWatch:
    """One bundle's history and the rules of its operator; used from one event loop, but for what says otherwise."""

    def __init__(
        self,
        history: Kept,
        rules: Rules,
        metrics: Metrics,
        *,
        loop: asyncio.AbstractEventLoop,
        save: Callable[[], None] | None = None,
    ) -> None:
        """Starts the thread that owns the history.

        Args:
            loop: the one that it is used from.
            save: keeps the history over a restart; called in that thread, at its end.
        """
        self.rules = rules
        self.metrics = metrics.history
        self.ledger = Ledger(flags=rules.flags, late_flags=rules.late_flags, window_s=rules.window_s)
        self._history = history
        self._save = save
        self._teller = Teller(rules)
        history.listen(self)
        self._observer = Observer(history, self.metrics, self._observed, loop=loop, gathers=not rules.mode.waits)

    def ceiling(self, caller: Caller, mode: RevealMode) -> RevealMode:
        """As `Watch`."""
        return mode if self.names_detectors(caller) else RevealMode.DECISION

    def names_detectors(self, caller: Caller) -> bool:
        """As `Watch`."""
        return self.rules.mode is not Mode.SILENT or is_trusted(caller)

    async def look(self, scored: Sequence[Scored], caller: Caller) -> Noticed:
        """As `Watch`."""
        client = NOBODY if caller is ANONYMOUS else caller.name
        found = await self._found(client, scored)
        if self.rules.cuts_off(client) and self._has_enough(client, found):
            if not self.rules.is_plain:
                raise PermissionRefused(self._refusal())
            return Noticed(is_plain=True)
        if found is None or not is_trusted(caller) or not any(found.p_values):
            return NOTHING
        return Noticed(p_values=found.p_values)

    @property
    def trouble(self) -> str:
        """Why it sees less than it should, for people; empty when all is well. From any thread."""
        return self._observer.trouble

    @property
    def is_shared(self) -> bool:
        """Whether other processes watch with the same history, and so the same clients."""
        return self._history.is_shared

    def show(self) -> None:
        """Has the metrics tell of this history."""
        observer, gauges = self._observer, self.metrics
        gauges.queue_items.set_function(lambda: observer.items)
        gauges.entries.set_function(lambda: observer.entries)
        gauges.size_bytes.set_function(lambda: observer.size_bytes)
        gauges.degraded.set_function(lambda: bool(observer.trouble))
        gauges.clients["watched"].set_function(lambda: len(self._counted()))
        gauges.clients["cut_off"].set_function(lambda: sum(map(self.is_cut_off, self._counted())))

    def watched(self) -> list[Watched]:
        """All who have flags, and components of clients that are closed to all. From any thread."""
        return [one for one in self.ledger.watched(time.time()) if not one.is_search_of_clients or self.is_cut_off(one)]

    def is_cut_off(self, one: Watched) -> bool:
        """Whether one who has flags has too many, and is answered otherwise for that."""
        return one.has_enough and self.rules.cuts_off(one.who[0])

    def forgive(self, client: str) -> int:
        """Forgets the flags of a client, and has the history drop what speaks against its queries; blocks.

        Args:
            client: a name; `#` and a key for one whose name only other processes know, as it is shown; `NOBODY` for
                all whom nobody vouches for.

        Returns:
            How many flags there were.

        Raises:
            Unavailable: the history does not come back.
        """
        key = self._key_shown(client)
        flags = self.ledger.forgive(key)
        done = self._observer.order(lambda: self._forgive(key))
        try:
            done.result(FORGIVE_S)
        except Exception as error:
            raise Unavailable(
                f"{flags} flags are forgotten, but the history cannot drop its evidence: {str(error) or 'no answer'}"
            ) from error
        return flags

    def saw(self, client: int, observation: Observation, now: float) -> None:
        """Counts the flag of a query that another process observed, which tells of it itself; see `Listener`."""
        self.ledger.follow(observation)
        if observation.p_value > self.rules.level:
            return
        who = who_of(key := _key_of(client), observation)
        self.ledger.note(who, observation, now, by=NOBODY if key == NOBODY else None)
        if key != NOBODY and (search := search_of(observation)) is not None:
            self.ledger.note(search, observation, now, by=key)

    def _forgive(self, key: str) -> None:
        """In the history's thread; what came before the others were told may have been counted meanwhile."""
        self.ledger.forgive(key, self._history.forgive_number(entries.ANONYMOUS if key == NOBODY else int(key, 16)))

    def _key_shown(self, client: str) -> str:
        """Of a name, or of the key itself where that is what an operator was shown: of one who has none here."""
        shown = client.removeprefix("#")
        is_key = shown != client and any(one.who[0] == shown and not one.name for one in self.watched())
        return shown if is_key else self._key(client)

    def forgave(self, client: int, components: Collection[int]) -> None:
        """Forgets the flags of a client that another process forgave; see `Listener`."""
        self.ledger.forgive(_key_of(client), components)

    def close(self, *, saves: bool = False) -> None:
        """Ends the thread when it has observed what waits.

        Args:
            saves: whether it keeps the history over a restart; blocks then until it has.
        """
        within_s = CLOSE_S if self._save is None else SAVE_S
        self._observer.close(within_s if saves else 0.0, self._save if saves else None)

    def _has_enough(self, client: str, found: "_Found | None") -> bool:
        if found is not None and found.has_enough and self.rules.cuts_off(NOBODY):
            return True
        return client != NOBODY and self.ledger.has_enough((self._key(client), CLIENT), time.time())

    async def _found(self, client: str, scored: Sequence[Scored]) -> _Found | None:
        """What was seen of these images, where the mode waits for it and it comes in time."""
        waits = self.rules.mode.waits and not self._observer.is_stuck
        future: asyncio.Future[object] | None = asyncio.get_running_loop().create_future() if waits else None
        if not self._observer.put(Group(client, scored, future)) or future is None:
            return None
        done, _ = await asyncio.wait((future,), timeout=self.rules.wait_s)
        if not done:
            self.metrics.late.inc(len(scored))
            return None
        found = future.result()
        return found if isinstance(found, _Found) else None

    def _observed(self, group: Group, observations: list[Observation]) -> _Found:
        """Counts flags; in the history's thread."""
        has_enough = False
        p_values: list[float | None] = []
        for seen in observations:
            self.ledger.follow(seen)
            is_flagged = seen.p_value <= self.rules.level
            p_values.append(seen.p_value if is_flagged else None)
            if is_flagged:
                self.metrics.flags[_scope(seen)].inc()
                has_enough |= self._noted(group, seen)
            step = step_of(seen)
            has_enough |= step is not None and self.ledger.has_enough(step, group.now)
        return _Found(p_values, has_enough)

    def _noted(self, group: Group, seen: Observation) -> bool:
        """Counts the flag of a query; gives whether nobody vouches for it and its component has too many."""
        who = who_of(key := self._key(group.client), seen)
        if group.client == NOBODY:
            self._teller.flagged(self.ledger.note(who, seen, group.now, by=NOBODY), who, seen)
            return self.ledger.has_enough(who, group.now)
        self._teller.flagged(self.ledger.note(who, seen, group.now, name=group.client), who, seen, group.client)
        if (search := search_of(seen)) is not None:
            step = self.ledger.note(search, seen, group.now, by=key)
            if step is Step.ENOUGH and self.rules.cuts_off(NOBODY):
                self._teller.flagged(step, search, seen)
        return False

    def _counted(self) -> list[Watched]:
        """Those that the metrics count: a search of clients is in them by its clients."""
        return [one for one in self.watched() if not one.is_search_of_clients]

    def _key(self, client: str) -> str:
        return _key_of(self._history.number(client))

    def _refusal(self) -> str:
        if self.rules.mode is Mode.SILENT:
            return "this caller gets no more answers; ask the operator of this server"
        return (
            "too many of these images look like steps of a search for an adversarial image; ask the operator of this "
            "server"
        )


def _key_of(client: int) -> str:
    """By which the ledger knows a client; the same in all processes that share the history, where its name is not."""
    return NOBODY if client == entries.ANONYMOUS else f"{client:016x}"


def _scope(seen: Observation) -> str:
    """In which a flagged query is more conspicuous."""
    own = -1.0 if seen.own is None else seen.own.statistic
    return "own" if seen.everyone is None or own >= seen.everyone.statistic else "everyone"
