"""The simulated queue: by hand in small, against the formula of M/D/1 at large, and what balancing does to it."""

import numpy as np
import pytest

from deploy.loadtest.queueing import Process, by_call, by_connection, highest_share, served, zipf

ONE = Process(image_s=1.0, max_batch=1, deadline_s=100.0)


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_an_idle_process_takes_an_images_own_time() -> None:
    assert served(ONE, [0.0, 5.0, 10.0]) == [1.0, 1.0, 1.0]


def test_who_comes_during_a_run_waits_for_its_end() -> None:
    assert served(ONE, [0.0, 0.25, 0.5]) == [1.0, 1.75, 2.5]


def test_what_waits_runs_together_and_is_answered_together() -> None:
    batching = Process(image_s=1.0, max_batch=8, deadline_s=100.0)
    assert served(batching, [0.0, 0.25, 0.5]) == [1.0, 2.75, 2.5]
    assert served(Process(image_s=1.0, max_batch=2, deadline_s=100.0), [0.0, 0.1, 0.2, 0.3]) == pytest.approx(
        [1.0, 2.9, 2.8, 3.7]
    )


def test_who_would_wait_longer_than_half_of_his_deadline_is_refused() -> None:
    hasty = Process(image_s=1.0, max_batch=1, deadline_s=4.0)
    assert served(hasty, [0.0, 0.1, 0.2, 0.3]) == pytest.approx([1.0, 1.9, 2.8])  # before the last lie 2.7 s of work


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_without_batches_the_mean_wait_is_that_of_the_formula(share: float) -> None:
    arrivals = np.cumsum(generator().exponential(1 / share, 200_000)).tolist()
    waited = np.mean(served(Process(image_s=1.0, max_batch=1, deadline_s=1e9), arrivals)) - 1
    assert waited == pytest.approx(share / (2 * (1 - share)), rel=0.05)  # Pollaczek and Khinchine


def test_above_the_capacity_some_are_refused_and_the_rest_in_time() -> None:
    process = Process(image_s=0.01, max_batch=16, deadline_s=1.0)
    found = by_call(process, 2, 2.0, seconds=20, generator=generator())
    assert 0.4 < found.refused < 0.6
    assert found.p99_s <= process.deadline_s


def test_connections_of_unlike_clients_overload_one_process_while_calls_do_not() -> None:
    process = Process(image_s=0.001, max_batch=16, deadline_s=1.0)
    spread = by_call(process, 8, 0.6, seconds=5, generator=generator())
    pinned = by_connection(process, 8, 0.6, zipf(32, 1.0), seconds=5, generator=generator())
    assert (spread.refused, spread.hottest) == (0.0, 1.0)
    assert pinned.hottest > 1.5
    assert pinned.p99_s > 2 * spread.p99_s


def test_parts_of_clients_fall_and_make_a_whole() -> None:
    parts = zipf(4, 1.0)
    assert parts.sum() == pytest.approx(1)
    assert parts[0] / parts == pytest.approx([1, 2, 3, 4])
    assert zipf(3, 0.0) == pytest.approx([1 / 3] * 3)


def test_the_share_that_may_be_given_grows_with_the_objective() -> None:
    process = Process(image_s=0.002, max_batch=16, deadline_s=10.0)
    shares = [highest_share(process, objective, processes=2, seconds=5, seed=0) for objective in (0.001, 0.008, 0.1)]
    assert shares[0] == 0
    assert 0 < shares[1] < shares[2] < 1
