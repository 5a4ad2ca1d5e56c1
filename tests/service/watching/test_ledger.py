"""Flags by client, within a window, of a bounded number of clients."""

from dataclasses import replace

import pytest

from service.watching.ledger import CLIENT, Ledger, Step, who_of
from tests.service.watching.world import seen

SHOP = ("shop", CLIENT)
FLAG = seen(0.001)


def test_flags_count_for_a_window() -> None:
    ledger = Ledger(flags=3, window_s=10.0)
    steps = [ledger.note(SHOP, FLAG, now) for now in (0.0, 4.0, 8.0, 9.0)]
    assert steps == [Step.FIRST, Step.ONE_MORE, Step.ENOUGH, Step.ONE_MORE]
    assert [ledger.has_enough(SHOP, now) for now in (9.0, 14.0, 14.5)] == [True, True, False]
    assert not ledger.has_enough(("else", CLIENT), 9.0)
    assert ledger.note(SHOP, FLAG, 15.0) is Step.ENOUGH  # again, with 8, 9 and 15
    assert ledger.note(SHOP, FLAG, 17.9) is Step.ONE_MORE


def test_flags_too_far_apart_are_never_enough() -> None:
    ledger = Ledger(flags=2, window_s=10.0)
    for now in range(0, 110, 11):
        assert ledger.note(SHOP, FLAG, float(now)) is Step.FIRST
        assert not ledger.has_enough(SHOP, float(now))
    assert ledger.watched(200.0) == []


def test_the_end_comes_late_by_a_draw_of_each_client() -> None:
    draws = iter([0, 3])
    ledger = Ledger(flags=2, late_flags=3, window_s=10.0, draw=lambda below: next(draws) % below)
    for who, enough in ((SHOP, 2), (("else", CLIENT), 5)):
        steps = [ledger.note(who, FLAG, 1.0) for _ in range(enough)]
        assert steps.index(Step.ENOUGH) == enough - 1


def test_the_one_flagged_longest_ago_makes_room() -> None:
    ledger = Ledger(flags=2, window_s=100.0, most=3)
    for number, name in enumerate("abcabd"):
        ledger.note((name, CLIENT), FLAG, float(number))
    assert [one.who[0] for one in ledger.watched(6.0)] == ["d", "b", "a"]
    assert sum(one.has_enough for one in ledger.watched(6.0)) == 2


def test_what_is_told_of_one_who_is_watched() -> None:
    ledger = Ledger(flags=2, window_s=100.0)
    for now in (1.0, 2.0, 5.0):
        ledger.note(SHOP, seen(now / 1000), now)
    (one,) = ledger.watched(6.0)
    assert (one.who, one.flags, one.since, one.last, one.has_enough) == (SHOP, 3, 1.0, 5.0, True)
    assert one.observation.p_value == pytest.approx(0.005)


def test_forgiving() -> None:
    ledger = Ledger(flags=1, window_s=100.0)
    for who in (SHOP, ("", 3), ("", 4), SHOP):
        ledger.note(who, FLAG, 1.0)
    assert ledger.forgive("shop") == 2
    assert not ledger.has_enough(SHOP, 1.0)
    assert ledger.forgive("") == 2
    assert ledger.forgive("") == 0


def test_nobody_is_told_apart_by_component() -> None:
    assert who_of("shop", seen(0.001, number=7)) == SHOP
    assert who_of("", seen(0.001, number=7)) == ("", 7)
    assert who_of("", seen(1.0)) == ("", CLIENT)


def test_flags_go_with_components_that_become_one_and_not_with_a_number_that_comes_again() -> None:
    ledger = Ledger(flags=3, window_s=100.0)
    for number, now in ((4, 1.0), (4, 2.0), (5, 3.0), (6, 4.0)):
        ledger.note(("", number), FLAG, now, by=f"{number}")
    assert FLAG.everyone is not None
    found = replace(FLAG.everyone, number=5, absorbed=(4, 7))
    ledger.follow(replace(FLAG, everyone=found))
    assert ledger.has_enough(("", 5), 5.0)
    told = {one.who[1]: (one.flags, one.since, one.last, one.by) for one in ledger.watched(5.0)}
    assert told == {5: (3, 1.0, 3.0, {"4", "5"}), 6: (1, 4.0, 4.0, {"6"})}
    ledger.follow(replace(FLAG, everyone=replace(found, number=8, absorbed=(5,))))
    assert [one.who[1] for one in ledger.watched(5.0)] == [8, 6]
    ledger.follow(replace(FLAG, everyone=replace(found, number=8, absorbed=(), is_new=True)))
    assert [one.who[1] for one in ledger.watched(5.0)] == [6]


def test_flags_that_come_late_count_by_their_time() -> None:
    ledger = Ledger(flags=3, window_s=10.0)
    for now in (20.0, 21.0, 12.0, 13.0):
        ledger.note(SHOP, FLAG, now)
    assert ledger.has_enough(SHOP, 22.0)
    assert not ledger.has_enough(SHOP, 23.5)
    ledger.note(("else", CLIENT), FLAG, 26.0)
    ledger.note(("late", CLIENT), FLAG, 14.0)
    assert [(one.who[0], one.last) for one in ledger.watched(26.0)] == [("else", 26.0), ("shop", 21.0)]
