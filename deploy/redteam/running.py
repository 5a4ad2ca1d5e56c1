"""Attackers at work, many at once: their accounts, their clocks, their budgets, and what they come to."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from deploy.redteam.backend import Backend, Call, Told
from deploy.redteam.search import Answer, Attack, Goal, linf
from service.detection.types import Bytes8

__all__ = ["Budget", "End", "Outcome", "run"]

BEGIN = 1.8e9
"""Unix time of the first query."""
AT_ONCE = 8
"""Images that an attacker sends in one call at most; a server that closes his account answers none of them."""


class End(StrEnum):
    """Why an attack ended."""

    WON = "won"
    QUERIES = "queries"
    FLAGS = "flags"
    ACCOUNTS = "accounts"
    SEARCH = "search"
    """It knew no further."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an attacker has."""

    queries: int
    """Refused ones count."""
    flags: int | None = None
    """Queries that the history speaks against."""
    accounts: int = 1
    """The next one is taken when one is closed."""
    every_s: float = 0.1
    """Between two queries."""
    is_spread: bool = False
    """Whether accounts are taken in turn, query by query, instead."""
    waits_s: float = 0.0
    """For how long an attacker leaves a closed account alone and then goes on with it; 0: he does not."""


@dataclass(kw_only=True)
class Outcome:
    """Of one attack."""

    queries: int = 0
    flags: int = 0
    refused: int = 0
    accounts: int = 0
    """That were used."""
    first_flag: int | None = None
    """The first query, from 1, that the history spoke against."""
    won: dict[int, int] = field(default_factory=dict)
    """Budget eps in levels to the first query that was answered as another class, and accepted, within it."""
    flags_won: dict[int, int] = field(default_factory=dict)
    """The same to the flags until then."""
    accounts_won: dict[int, int] = field(default_factory=dict)
    fooled: dict[int, int] = field(default_factory=dict)
    """The same without being accepted."""
    seconds: float = 0.0
    """Of the attacker's clock."""
    norm: int | None = None
    """Smallest change that was answered as another class, and accepted, in levels."""
    end: End = End.SEARCH


class _Attacker:
    """One attack under way."""

    def __init__(
        self, number: int, attack: Attack, goal: Goal, eps: Sequence[int], budget: Budget, seed: tuple[int, ...]
    ) -> None:
        self._number, self._goal, self._eps, self._budget = number, goal, eps, budget
        self._search = attack.search(goal, np.random.default_rng(seed))
        self._accounts = deque(range(budget.accounts))
        self._answers: list[Answer] = []
        self.outcome = Outcome()
        self.is_over = False
        self._waiting = self._next(None)

    def call(self) -> Call:
        """What it asks next."""
        asked = self.outcome.queries
        room = 1 if self._budget.is_spread else AT_ONCE
        return Call(
            attacker=self._number,
            account=f"account {self._accounts[0]}",
            images=self._waiting[: min(room, self._budget.queries - asked)],
            now=BEGIN + self.outcome.seconds,
            every_s=self._budget.every_s,
        )

    def tell(self, images: Bytes8, told: Sequence[Told]) -> None:
        """What came of the images of a call."""
        outcome, budget = self.outcome, self._budget
        outcome.accounts = max(outcome.accounts, self._accounts[0] + 1)
        norms = linf(images, self._goal.image)
        outcome.seconds += len(told) * budget.every_s
        for one, norm in zip(told, norms.tolist(), strict=True):
            self._count(one, norm)
        is_out = self._change_account(any(one.answer.is_cut_off for one in told))
        again = [number for number, one in enumerate(told) if one.answer.is_cut_off]
        self._answers += [one.answer for one in told if not one.answer.is_cut_off]
        self._waiting = np.concatenate([images[again], self._waiting[len(images) :]])
        if min(self._eps) in outcome.won:
            self._finish(End.WON)
        elif is_out:
            self._finish(End.ACCOUNTS)
        elif budget.flags is not None and outcome.flags >= budget.flags:
            self._finish(End.FLAGS)
        elif outcome.queries >= budget.queries:
            self._finish(End.QUERIES)
        elif not len(self._waiting):
            answers, self._answers = self._answers, []
            self._waiting = self._next(answers)

    def _count(self, told: Told, norm: int) -> None:
        outcome, answer = self.outcome, told.answer
        outcome.queries += 1
        outcome.refused += answer.is_refused
        if told.is_flagged:
            outcome.flags += 1
            outcome.first_flag = outcome.first_flag or outcome.queries
        if answer.is_refused or answer.label == self._goal.label:
            return
        for eps in self._eps:
            if norm <= eps:
                outcome.fooled.setdefault(eps, outcome.queries)
        if self._goal.won(answer):
            outcome.norm = norm if outcome.norm is None else min(norm, outcome.norm)
            for eps in self._eps:
                if norm <= eps and eps not in outcome.won:
                    outcome.won[eps] = outcome.queries
                    outcome.flags_won[eps] = outcome.flags
                    outcome.accounts_won[eps] = outcome.accounts

    def _change_account(self, is_closed: bool) -> bool:
        """Takes the next account where it must, or its turn has come; gives whether there is none."""
        if is_closed and self._budget.waits_s:
            self.outcome.seconds += self._budget.waits_s
        elif is_closed:
            self._accounts.popleft()
        elif self._budget.is_spread:
            self._accounts.rotate(-1)
        return not self._accounts

    def _next(self, answers: Sequence[Answer] | None) -> Bytes8:
        try:
            return next(self._search) if answers is None else self._search.send(answers)
        except StopIteration:
            self._finish(End.SEARCH)
            return self._goal.image[None][:0]

    def _finish(self, end: End) -> None:
        self.outcome.end = end
        self.is_over = True
        self._search.close()


def run(
    attack: Attack,
    goals: Sequence[Goal],
    backend: Backend,
    budget: Budget,
    *,
    eps: Sequence[int],
    seed: int,
    until: float = np.inf,
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome] | None:
    """Attacks each image by itself, all of them in step; None where time is up before all are over.

    Args:
        attack: the same for all.
        goals: by image.
        backend: of a server.
        budget: of each.
        eps: budgets at which success is told, in levels; an attack ends with the smallest.
        seed: of the attacks' draws.
        until: monotonic time at which time is up.
        progress: is told how many attacks are under way and how many queries were asked.
    """
    attackers = [_Attacker(number, attack, goal, eps, budget, (seed, number)) for number, goal in enumerate(goals)]
    while living := [one for one in attackers if not one.is_over]:
        if time.monotonic() >= until:
            return None
        calls = [one.call() for one in living]
        for one, call, told in zip(living, calls, backend.ask(calls), strict=True):
            one.tell(call.images, told)
        if progress is not None:
            progress(len(living), sum(one.outcome.queries for one in attackers))
    return [one.outcome for one in attackers]
