"""Two lanes: interactive first, bulk never starved."""

import numpy as np
import pytest

from service.detection.types import Scored
from service.errors import AdvsentryError
from service.lanes import AGEING_S, Lanes, Waiting

LATER = 1.0 + AGEING_S + 0.001


class Nobody:
    """A waiter of whom nothing is asked here."""

    is_settled = False

    def scored(self, row: Scored) -> None:
        raise AssertionError(row)

    def failed(self, error: AdvsentryError) -> None:
        raise AssertionError(error)


def waiting(since: float, *, is_bulk: bool, key: str = "") -> Waiting:
    return Waiting(np.zeros((2, 2, 1), np.uint8), 10.0, since, Nobody(), is_bulk, key)


def filled(interactive: int, bulk: int, since: float = 1.0) -> Lanes:
    lanes = Lanes()
    for is_bulk in [True] * bulk + [False] * interactive:
        lanes.push(waiting(since, is_bulk=is_bulk))
    return lanes


def popped(lanes: Lanes, now: float) -> str:
    return "".join("b" if lanes.pop(now).is_bulk else "i" for _ in range(lanes.items))


@pytest.mark.parametrize(
    ("now", "order"), [(1.1, "iiiiiiiiibbb"), (LATER, "iiibiiibiiib")], ids=["young bulk waits", "old bulk has places"]
)
def test_the_order(now: float, order: str) -> None:
    assert popped(filled(9, 3), now) == order


def test_each_lane_is_first_in_first_out() -> None:
    lanes = Lanes()
    for since in range(6):
        lanes.push(waiting(float(since), is_bulk=since % 2 == 0))
    assert [lanes.pop(0.0).since for _ in range(6)] == [1.0, 3.0, 5.0, 0.0, 2.0, 4.0]


def test_bulk_gets_a_quarter_while_interactive_images_never_end() -> None:
    lanes, bulk = filled(1, 100), 0
    for _ in range(200):
        lanes.push(waiting(2.0, is_bulk=False))
        bulk += lanes.pop(LATER).is_bulk
    assert bulk == 50


def test_an_interactive_image_waits_for_its_lane_and_the_places_of_bulk() -> None:
    lanes = filled(9, 100)
    assert lanes.ahead(is_bulk=True) == 109
    assert lanes.ahead(is_bulk=False) == 9 + 3
    assert filled(9, 1).ahead(is_bulk=False) == 10
    assert filled(0, 100).ahead(is_bulk=False) == 0


def test_callers_take_turns_in_each_lane() -> None:
    lanes = Lanes()
    for is_bulk in (True, False):
        for key in "ggggm":
            lanes.push(waiting(1.0, is_bulk=is_bulk, key=key))
    assert [lanes.callers, lanes.held("g"), lanes.held("m"), lanes.held("x")] == [4, 8, 2, 0]
    assert [lanes.ahead("x", is_bulk=False), lanes.ahead("x", is_bulk=True)] == [2, 7]
    assert "".join(lanes.pop(1.1).key for _ in range(10)) == "gmggg" * 2


def test_items_and_bytes_are_those_that_wait() -> None:
    lanes = filled(2, 3)
    assert (lanes.items, lanes.size_bytes) == (5, 20)
    lanes.pop(1.1)
    assert (lanes.items, lanes.size_bytes) == (4, 16)
    assert [item.is_bulk for item in lanes.take_all()] == [False, True, True, True]
    assert (lanes.items, lanes.size_bytes) == (0, 0)
