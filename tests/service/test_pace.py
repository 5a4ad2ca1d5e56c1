"""What is learned from the runs of the graph."""

import pytest

from service.pace import Pace


def paced(*runs: tuple[int, float], max_batch: int = 64) -> Pace:
    pace = Pace(max_batch)
    for size, took_s in runs:
        pace.note(size, took_s)
    return pace


def test_nothing_is_known_before_the_first_run() -> None:
    pace = Pace(8)
    assert (pace.one_s, pace.item_s, pace.slow_s, pace.seconds(5)) == (0, 0, 0, 0)


def test_a_size_takes_what_it_took() -> None:
    pace = paced((1, 0.002), (64, 0.032))
    assert pace.one_s == 0.002
    assert pace.item_s == pytest.approx(0.032 / 64)
    assert pace.seconds(64) == 0.032
    assert pace.seconds(128) == pytest.approx(0.064)  # two runs


def test_a_size_that_never_ran_is_bounded_by_its_neighbours() -> None:
    pace = paced((1, 0.002), (64, 0.032))
    assert pace.seconds(4) == pytest.approx(0.008)  # four runs of one
    assert pace.seconds(32) == 0.032  # no more than one of 64


def test_one_bad_moment_spoils_no_other_size() -> None:
    pace = paced((1, 0.002), (2, 0.003), (64, 20.0))
    assert pace.seconds(64) == pytest.approx(64 / 2 * 0.003)


def test_one_outlier_is_no_news_and_ten_are() -> None:
    runs = [(1, 0.001)] * 20
    assert paced(*runs, (1, 5.0)).one_s <= 0.00125
    assert paced(*runs, *[(1, 0.010)] * 20).one_s > 0.009
    assert paced(*runs, *[(1, 0.0001)] * 30).one_s < 0.0002


def test_the_slow_ones_are_the_last_in_a_hundred() -> None:
    pace = paced(*[(1, 0.001)] * 900, *[(1, 0.5)] * 100)
    assert pace.slow_s == 0.5
    assert paced(*[(1, 0.001)] * 995, *[(1, 0.5)] * 5).slow_s == 0.001
    assert paced((1, 0.3)).slow_s == 0.3


def test_a_run_of_so_many_images_takes_so_much_longer_than_one() -> None:
    pace = Pace(64)
    assert pace.more_within(0.001) == 64  # nothing is known
    for size, seconds in ((1, 0.002), (4, 0.005), (64, 0.064)):
        pace.note(size, seconds)
    assert [pace.more_within(s) for s in (0.0001, 0.002, 0.008, 0.030, 0.062, 1.0)] == [1, 2, 8, 25, 64, 64]
    gpu = paced((1, 0.010), (64, 0.0109))
    assert gpu.more_within(0.001) == 64  # many take as long as one
