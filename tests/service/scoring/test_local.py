"""Stages that overlap, and never get far ahead of each other."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("pyarrow", reason="pyarrow (the extra `score`) is not installed")

from service.scoring.local import ahead


def test_results_come_in_order_with_so_many_under_way() -> None:
    taken = 0

    def given() -> Iterator[int]:
        nonlocal taken
        for number in range(20):
            taken += 1
            yield number

    with ThreadPoolExecutor(3) as executor:
        results = ahead(executor, lambda number: number * number, given(), 4)
        for i, result in enumerate(results):
            assert result == i * i
            assert taken <= i + 4
    assert taken == 20


def test_two_stages_run_at_once() -> None:
    """Each waits for the other: one after the other, they would wait for ever."""
    meeting = threading.Barrier(2, timeout=60)

    def meet(number: int) -> int:
        meeting.wait()
        return number

    def meet_late(number: int) -> int:
        if number < 5:
            meeting.wait()
        return number

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        start = threading.Thread(target=meeting.wait)  # the second stage has nothing to do at first
        start.start()
        assert list(ahead(second, meet_late, ahead(first, meet, range(6), 2), 2)) == list(range(6))
        start.join()


def test_an_error_comes_to_who_asks() -> None:
    def fails(number: int) -> int:
        if number == 3:
            raise ValueError("3")
        return number

    with ThreadPoolExecutor(2) as executor:
        results = ahead(executor, fails, range(10), 3)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="3"):
            next(results)
