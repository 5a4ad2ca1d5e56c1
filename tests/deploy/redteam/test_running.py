"""Accounts, clocks and budgets of attackers, and what is counted of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from deploy.redteam.backend import Call, Told
from deploy.redteam.cases import OFF, Case, Server, cases
from deploy.redteam.figures import headline, rows, table
from deploy.redteam.running import Budget, End, Outcome, run
from deploy.redteam.search import Answer, Goal, Search
from tests.deploy.redteam import toy


@dataclass(frozen=True)
class Steps:
    """Asks about ever brighter images, so many at once."""

    together: int = 1

    def search(self, goal: Goal, generator: np.random.Generator) -> Search:
        level = 0
        while True:
            level += 1
            image = np.minimum(goal.image.astype(int) + level, 255).astype(np.uint8)
            self.heard(len((yield np.repeat(image[None], self.together, axis=0))))

    def heard(self, count: int) -> None:
        assert count == self.together, "one answer for each image"


@dataclass
class Closing:
    """A server that flags every query and closes an account with its third flag."""

    limit: int = 3
    flags: dict[str, int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def ask(self, calls: Sequence[Call]) -> list[list[Told]]:
        self.calls += calls
        return [self._told(call) for call in calls]

    def _told(self, call: Call) -> list[Told]:
        key = f"{call.attacker} {call.account}"
        self.flags[key] = self.flags.get(key, 0) + len(call.images)
        if self.flags[key] >= self.limit:
            return [Told(answer=Answer(is_refused=True, is_cut_off=True), is_flagged=True)] * len(call.images)
        return [Told(answer=toy.answer(image), is_flagged=True) for image in call.images]


def ran(backend: Closing, budget: Budget, attack: Steps | None = None, goals: int = 1) -> list[Outcome]:
    found = run(attack or Steps(), [toy.goal()] * goals, backend, budget, eps=[toy.EPS], seed=0)
    assert found is not None
    return found


def test_the_next_account_asks_again_what_the_closed_one_was_refused() -> None:
    backend = Closing()
    (outcome,) = ran(backend, Budget(queries=100, accounts=3))
    brightness = [int(call.images[0, 0, 0, 0]) - 120 for call in backend.calls]
    assert [call.account for call in backend.calls] == ["account 0"] * 3 + ["account 1"] * 3 + ["account 2"] * 3
    assert brightness == [1, 2, 3, 3, 4, 5, 5, 6, 7]
    assert (outcome.queries, outcome.accounts, outcome.end) == (9, 3, End.ACCOUNTS)
    assert (outcome.flags, outcome.refused, outcome.first_flag) == (9, 3, 1)


def test_a_batch_is_answered_whole_over_several_accounts() -> None:
    backend = Closing(limit=12)
    (outcome,) = ran(backend, Budget(queries=60, accounts=2), Steps(together=10))
    assert outcome.end is End.ACCOUNTS
    assert {len(call.images) for call in backend.calls} == {2, 8}


def test_accounts_that_are_spread_take_turns() -> None:
    backend = Closing()
    (outcome,) = ran(backend, Budget(queries=5, accounts=3, is_spread=True))
    assert [call.account for call in backend.calls] == [f"account {number % 3}" for number in range(5)]
    assert (outcome.accounts, outcome.end) == (3, End.QUERIES)


def test_a_closed_account_is_left_alone_for_a_while_by_who_waits() -> None:
    backend = Closing()
    (outcome,) = ran(backend, Budget(queries=5, every_s=2.0, waits_s=1000.0))
    times = [call.now - backend.calls[0].now for call in backend.calls]
    assert times == [0.0, 2.0, 4.0, 1006.0, 2008.0]
    assert outcome.accounts == 1


def test_flags_are_a_budget_too() -> None:
    (outcome,) = ran(Closing(limit=1000), Budget(queries=100, flags=7), Steps())
    assert (outcome.end, outcome.flags) == (End.FLAGS, 7)


def test_success_is_counted_where_it_was_answered_within_the_budget() -> None:
    first, second = ran(Closing(limit=1000), Budget(queries=100), goals=2)
    assert first.end is second.end is End.WON
    assert first.won == {toy.EPS: 9}
    assert first.norm == 9
    (refused,) = ran(Closing(limit=6), Budget(queries=100))
    assert (refused.won, refused.norm, refused.end) == ({}, None, End.ACCOUNTS)


def test_time_that_is_up_gives_no_outcome() -> None:
    assert run(Steps(), [toy.goal()], Closing(), Budget(queries=5), eps=[toy.EPS], seed=0, until=0.0) is None


def case(mode: str, how: str, eps: tuple[int, ...] = (8,)) -> Case:
    return Case(name="one", family="square", how=how, attack=Steps(), mode=mode, budget=Budget(queries=100), eps=eps)


def test_figures_tell_successes_and_what_they_cost() -> None:
    won = Outcome(queries=40, flags=4, accounts=2, first_flag=10, won={8: 30}, flags_won={8: 3}, accounts_won={8: 2})
    lost = Outcome(queries=60, flags=16, accounts=1, first_flag=60, fooled={8: 5, 4: 6})
    never = Outcome(queries=100, accounts=1)
    row, smaller = rows(case("reject", "OARS", (8, 4)), [won, lost, never, never])
    assert (row["success"], row["fooled"], smaller["success"], smaller["fooled"]) == (0.25, 0.25, 0.0, 0.25)
    assert (row["success_queries"], row["success_flags"], row["success_accounts"]) == (30, 3, 2)
    assert smaller["success_queries"] is None
    assert row["flagged"] == pytest.approx(20 / 300)
    assert (row["first_flag"], row["within_50"]) == (None, 0.25), "most were never flagged"
    assert "| 1/4 | 1/4 | 30, 3, 2 |" in table([row])


def test_the_headline_takes_the_most_successful_case_and_the_one_that_is_noticed_last() -> None:
    def row(how: str, mode: str, success: float, first: float | None) -> dict[str, object]:
        (made,) = rows(case(mode, how), [Outcome(queries=100, accounts=1)])
        return {**made, "success": success, "first_flag": first}

    found = headline(
        [
            row("OARS", "reject", 0.05, 3),
            row("OARS", "reject", 0.2, 3),
            {**row("OARS", "reject", 0.4, 3), "eps": 16},
            row("careful", "reject", 0.5, 3),
            row("careful", "annotate", 0.9, 3),
            row("plain", OFF, 0.8, None),
            row("plain", "annotate", 0.8, 20),
            row("plain", "annotate", 0.8, None),
        ],
        100,
    )
    assert found == {
        "oars_square_success": 0.4,
        "oars_square_success_eps_8": 0.2,
        "oars_square_success_eps_16": 0.4,
        "oars_square_success_1_accounts": 0.4,
        "oars_square_success_1_accounts_eps_8": 0.2,
        "oars_square_success_1_accounts_eps_16": 0.4,
        "undefended_square_success": 0.8,
        "undefended_square_success_eps_8": 0.8,
        "worst_square_success": 0.5,
        "plain_square_first_flag_median": 100,
        "plain_square_flagged_within_50": 0.0,
        "plain_first_flag_median": 100,
    }


def test_every_case_has_a_name_of_its_own_and_every_kind_of_server_is_asked() -> None:
    every = cases(1000, (4, 8), Server())
    assert len({one.name for one in every}) == len(every)
    assert {one.mode for one in every} == {OFF, "annotate", "reject", "silent"}
    assert {one.budget.accounts for one in every} == {1, 10, 100}
