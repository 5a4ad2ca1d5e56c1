"""Callers take turns; nobody starves; nothing is kept of who has left."""

import random
import time
from dataclasses import dataclass

import pytest

from service.turns import Turns


@dataclass(frozen=True)
class Item:
    key: str
    number: int


def filled(**counts: int) -> Turns[Item]:
    turns: Turns[Item] = Turns()
    for key, count in counts.items():
        for number in range(count):
            turns.push(Item(key, number))
    return turns


def order(turns: Turns[Item]) -> str:
    return "".join(turns.pop().key for _ in range(turns.items))


def test_callers_take_turns_and_each_ones_images_keep_their_order() -> None:
    turns = filled(a=4, b=2, c=1)
    came = [turns.pop() for _ in range(7)]
    assert "".join(item.key for item in came) == "abcabaa"
    assert [item.number for item in came if item.key == "a"] == [0, 1, 2, 3]


def test_a_newcomer_waits_for_one_image_of_each_other_caller() -> None:
    turns = filled(g=1000, h=1000)
    turns.push(Item("m", 0))
    assert turns.ahead("n") == 3
    assert order(turns).index("m") == 2


def test_newcomers_without_end_hold_nobody_up() -> None:
    turns = filled(a=10, b=3)
    served = 0
    for number in range(100):
        turns.push(Item(f"new{number}", 0))
        served += turns.pop().key == "a"
        turns.push(Item(f"more{number}", 0))  # twice as many come as run
    assert served >= 4
    left = order(turns)
    assert left.count("a") + served == 10


def test_one_who_comes_back_as_soon_as_he_is_served_gets_every_other_turn() -> None:
    turns, mine = filled(g=100), 0
    for _ in range(100):
        if not turns.held("m"):
            turns.push(Item("m", 0))
        mine += turns.pop().key == "m"
    assert mine == 50


def test_what_is_ahead_is_what_truly_runs_before() -> None:
    generator = random.Random(0)
    for _ in range(300):
        keys = "abcdef"[: generator.randint(1, 6)]
        turns: Turns[Item] = Turns()
        for number in range(generator.randint(0, 60)):
            turns.push(Item(generator.choices(keys, weights=[8, 4, 2, 1, 1, 1][: len(keys)])[0], number))
            if generator.random() < 0.3:
                turns.pop()
        key = generator.choice("abcdefg")
        told, is_new, others = turns.ahead(key), not turns.held(key), turns.callers
        turns.push(Item(key, -1))
        truly = next(i for i in range(turns.items) if turns.pop().number == -1)
        assert told == truly if is_new else truly <= told < truly + others


def test_memory_is_that_of_what_waits() -> None:
    turns = filled(**{f"k{i}": 1 + i % 3 for i in range(1000)})
    assert (turns.callers, turns.items) == (1000, 1999)
    assert len(turns.take_all()) == 1999
    assert turns.items == turns.callers == turns.ahead("k1") == 0
    assert [len(turns._of), len(turns._ring), len(turns._holding)] == [0, 0, 0]


@pytest.mark.parametrize("callers", [1, 1000])
def test_a_turn_costs_microseconds_however_many_wait(callers: int) -> None:
    turns = filled(**{f"k{i}": 10_000 // callers for i in range(callers)})
    runs = []
    for _ in range(5):
        since = time.process_time()
        for _ in range(2000):
            turns.push(turns.pop())
        runs.append((time.process_time() - since) / 2000)
    assert min(runs) < 10e-6
