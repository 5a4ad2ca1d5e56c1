"""Who is let in, and what the others are told."""

import time

import pytest
from prometheus_client import CollectorRegistry

from service.admission import PROBE_S, Admission, QueueLimits
from service.errors import DeadlinePassed, Overloaded
from service.lanes import Lanes
from service.metrics import Metrics
from service.pace import Pace
from tests.service.test_lanes import waiting

NOW = 100.0


class Door:
    """An admission of 10 ms an image in batches of 4, 40 ms a batch, and 10 ms for one alone."""

    def __init__(self, *, is_timed: bool = True, **limits: float) -> None:
        self.registry = CollectorRegistry()
        self.lanes, self.pace = Lanes(), Pace(4)
        self.admission = Admission(
            QueueLimits(max_batch=4, **limits),  # type: ignore[arg-type]
            self.lanes,
            self.pace,
            Metrics(self.registry),
        )
        self.admission.ran = NOW
        if is_timed:
            self.pace.note(1, 0.010)
            self.pace.note(4, 0.040)

    def put(self, count: int, *, is_bulk: bool = False, key: str = "") -> "Door":
        for _ in range(count):
            self.lanes.push(waiting(NOW, is_bulk=is_bulk, key=key))
        return self

    def check(self, left_s: float, count: int = 1, *, is_bulk: bool = False, key: str = "") -> None:
        self.admission.check(count, NOW + left_s, NOW, is_bulk=is_bulk, key=key)

    def hint_ms(self, left_s: float, *, is_bulk: bool = False) -> int:
        with pytest.raises(Overloaded) as caught:
            self.check(left_s, is_bulk=is_bulk)
        return caught.value.retry_after_ms

    def dropped(self, reason: str) -> float | None:
        return self.registry.get_sample_value("advsentry_dropped_total", {"reason": reason})


def test_what_can_come_in_time_is_let_in_and_the_rest_is_told_when() -> None:
    door = Door().put(20)
    door.check(0.415)  # half of it, less its own 10 ms, is 20 x 10 ms
    assert door.hint_ms(0.310) == pytest.approx(50, abs=2)
    assert door.dropped("overload") == 1


def test_the_run_of_now_counts_too() -> None:
    door = Door().put(5)
    door.check(0.115)
    door.admission.free_at = NOW + 0.02
    with pytest.raises(Overloaded, match="115 ms are left, and what waits takes about 70 ms"):
        door.check(0.115)
    door.admission.free_at = NOW - 5  # late: nobody knows how much longer
    door.check(0.115)


def test_those_who_are_refused_come_back_one_after_the_other() -> None:
    door = Door(items=20).put(20)
    hints = [door.hint_ms(10.0) for _ in range(50)]
    assert hints[:5] == pytest.approx([20, 20, 20, 30, 40], abs=2)  # never below 20
    assert hints[-1] == pytest.approx(200, abs=2)  # when the queue of now has run, at last


def test_a_lone_call_that_can_never_be_in_time_is_late_at_once() -> None:
    door = Door()
    with pytest.raises(DeadlinePassed, match=r"5\.0 ms are left, and without waiting it would take about 10\.0 ms"):
        door.check(0.005)
    with pytest.raises(DeadlinePassed):
        door.check(0.05, count=8)
    assert door.dropped("deadline") == 9


@pytest.mark.parametrize("left_s", [-0.001, -100.0])
def test_a_deadline_that_has_passed_is_refused_even_before_the_first_run(left_s: float) -> None:
    with pytest.raises(DeadlinePassed, match="had passed"):
        Door(is_timed=False).check(left_s)


def test_nothing_is_refused_by_time_before_the_first_run() -> None:
    Door(is_timed=False).put(1000).check(0.001)


def test_a_wrong_estimate_does_not_refuse_for_ever() -> None:
    door = Door()
    door.admission.ran = NOW - PROBE_S - 0.01
    door.check(0.005)  # an idle worker finds out
    door.put(1)
    with pytest.raises(DeadlinePassed):
        door.check(0.005)


def test_bulk_may_not_fill_the_room_of_interactive_images() -> None:
    door = Door(items=8).put(6, is_bulk=True)
    assert door.hint_ms(10.0, is_bulk=True) >= 20
    assert door.admission.is_full(is_bulk=True)
    assert not door.admission.is_full(is_bulk=False)
    door.check(10.0)
    door = Door(size_bytes=16).put(3, is_bulk=True)
    assert door.admission.is_full(is_bulk=True)
    assert not door.admission.is_full(is_bulk=False)


def test_interactive_images_do_not_wait_for_bulk() -> None:
    door = Door().put(50, is_bulk=True)
    door.check(0.03)
    with pytest.raises(Overloaded):
        door.check(0.03, is_bulk=True)


def test_a_newcomer_is_judged_by_what_truly_goes_before_him() -> None:
    door = Door().put(100, key="greedy").put(1, key="other")
    door.check(0.06, key="modest")  # twice the 2 images that go before his, and his own
    with pytest.raises(Overloaded):
        door.check(0.06, key="greedy")
    door.put(1, key="modest")
    door.check(0.12, key="modest")
    with pytest.raises(Overloaded):
        door.check(0.06, key="modest")
    assert not Door(wait_s=0.1).put(20, key="greedy").admission.is_busy(is_bulk=False, key="modest")


def test_one_who_fills_the_queue_does_not_shut_others_out() -> None:
    door = Door(items=12).put(12, key="greedy")

    def is_full(key: str) -> bool:
        return door.admission.is_full(is_bulk=False, key=key)

    assert [is_full("greedy"), is_full("modest")] == [True, False]
    with pytest.raises(Overloaded, match="12 images wait, 12 of them yours"):
        door.check(10.0, key="greedy")
    door.put(2, key="modest")
    assert [is_full("greedy"), is_full("modest"), is_full("third")] == [True, False, False]
    door.put(2, key="third")
    assert is_full("fourth")  # a third more than the room is the end
    assert Door(size_bytes=12 * 4).put(12, key="greedy").admission.is_full(is_bulk=False, key="greedy")


@pytest.mark.parametrize(("callers", "each"), [(1, 840), (2, 480), (3, 336)])
def test_callers_who_want_all_get_the_same(callers: int, each: int) -> None:
    door = Door(items=840)
    keys = [f"caller {i}" for i in range(callers)]
    while free := [key for key in keys if not door.admission.is_full(is_bulk=False, key=key)]:
        for key in free:
            door.put(1, key=key)
    assert all(abs(door.lanes.held(key) - each) <= 1 for key in keys)


def test_a_stream_waits_before_so_much_waits_that_its_images_come_late() -> None:
    door = Door(wait_s=0.1).put(11)
    assert door.admission.is_busy(is_bulk=True)
    assert not door.admission.is_full(is_bulk=True)
    assert not Door(wait_s=0.1).put(10).admission.is_busy(is_bulk=False)


def test_judging_costs_microseconds() -> None:
    door = Door().put(20)
    runs = []
    for _ in range(5):
        since = time.process_time()
        for _ in range(2000):
            door.check(10.0)
        runs.append((time.process_time() - since) / 2000)
    assert min(runs) < 20e-6
